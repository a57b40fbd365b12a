"""What the main job starts from: a trained network, captured, with its images and its menu."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitplan.config import Config
from bitplan.data import Dataset, load_data
from bitplan.errors import UsageError
from bitplan.evaluate import outputs_of
from bitplan.network import Network, Weights
from bitplan.policies.menu import Menu, menu_for
from bitplan.progress import Report, Reporter

TORCH_BATCH_ELEMENTS = 4 << 20
"""Input elements of one torch call at most; keeps intermediate values of large images within memory."""


LOSS_ELEMENTS = 128 * 3 * 224 * 224
"""Input elements of the images that losses are measured on by default: minutes, not hours, of work on two cores."""


@dataclass(frozen=True)
class Trained:
    """The network, its float32 weights, raw calibration and test images, and the variants each layer may get."""

    network: Network
    weights: Weights
    data: Dataset
    menu: Menu

    @cached_property
    def batch(self) -> int:
        """A sensible number of images per torch call."""
        return int(np.clip(TORCH_BATCH_ELEMENTS // int(np.prod(self.data.shape)), 1, 128))

    def loss_images(self, count: int | None) -> int:
        """How many calibration images losses are measured on, if the user asks for `count` of them or nothing."""
        affordable = max(1, LOSS_ELEMENTS // int(np.prod(self.data.shape)))
        return min(len(self.data.calibration_x), count or affordable)

    def reference(self, images: NDArray[Any], report: Report | None = None) -> NDArray[np.float32]:
        """Full-precision outputs of the first output for raw images."""
        from bitplan.simulate import Simulator

        simulator, first = Simulator(self.network, self.weights), self.network.outputs[0]
        return outputs_of(lambda x: simulator.outputs(x)[first].numpy(), images, self.batch, report)

    @cached_property
    def test_reference(self) -> NDArray[np.float32]:
        """Full-precision outputs on the test images."""
        return self.reference(self.data.test_x)

    def one_image(self, batch: int) -> Mapping[str, NDArray[Any]]:
        """`batch` raw test images by input name, for timing."""
        images = np.resize(self.data.test_x, (batch, *self.data.shape))
        return {self.network.inputs[0].name: np.ascontiguousarray(images)}


def is_example(config: Config) -> bool:
    """Whether neither a model nor data were named, so that the embedded example is meant."""
    return config.model is None and config.data is None


def load_trained(config: Config, reporter: Reporter) -> Trained:
    """Loads model and data as configured, captures the network and applies menu, pins and exclusions."""
    if is_example(config):
        reporter.say("no model was named: working on the [bold]embedded example[/] (Fashion-MNIST, residual network)")
    elif config.model is None or config.data is None:
        missing, given = ("model", "data") if config.model is None else ("data", "model")
        raise UsageError(f"--{given} is given without --{missing}; name both, or neither for the embedded example")
    with reporter.stage("loading and capturing the network"):
        network, weights, data = _example(config) if is_example(config) else _user(config)
    menu = menu_for(network, encodings=config.encodings or None, pins=config.pin, exclude=config.exclude)
    parameters = sum(array.size for name, array in weights.items() if name.endswith((".weight", ".bias")))
    reporter.say(
        f"{len(network.layers)} layers, {parameters:,} parameters; {len(data.calibration_x)} calibration images, "
        f"{len(data.test_x)} test images{'' if data.test_y is not None else ' without labels'}"
    )
    return Trained(network, weights, data, menu)


def _example(config: Config) -> tuple[Network, Weights, Dataset]:
    import torch

    from bitplan.capture import capture
    from bitplan.example import PREPROCESSING, example_data, example_module

    data = example_data()
    preprocessing = config.preprocessing_over(PREPROCESSING)
    network, weights = capture(example_module(), torch.zeros(2, *data.shape), preprocessing=preprocessing)
    return network, weights, data


def _user(config: Config) -> tuple[Network, Weights, Dataset]:
    from bitplan.model import load_model

    assert config.model is not None
    assert config.data is not None
    loaded = load_model(config.model, config.weights)
    preprocessing = config.preprocessing_over(loaded.preprocessing)
    data = load_data(
        config.data,
        calibration=config.calibration_size,
        limit=config.test_size,
        seed=config.seed,
        preprocessing=preprocessing,
        input_shape=loaded.example_shape,
    )
    import torch

    from bitplan.capture import capture

    network, weights = capture(loaded.module, torch.zeros(2, *data.shape), preprocessing=preprocessing)
    return network, weights, data
