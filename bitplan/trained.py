"""What the main job starts from: a trained network, captured, with its images and its menu."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bitplan.config import Config
from bitplan.data import Dataset, load_data
from bitplan.errors import UnsupportedError, UsageError
from bitplan.evaluate import Outputs, check_labels_fit, outputs_of
from bitplan.model_files import named_in_file
from bitplan.network import Network, Weights
from bitplan.policies.menu import Menu, menu_for
from bitplan.progress import Report, Reporter
from bitplan.user_code import require_package

if TYPE_CHECKING:
    from bitplan.model import LoadedModel

LOADING = 3
"""Steps of loading: the model, the images, capturing."""
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

    @cached_property
    def test_reference(self) -> Outputs:
        """Full-precision outputs on the test images."""
        return self._reference(None)

    def refer(self, reporter: Reporter) -> None:
        """Computes `test_reference` in a stage of its own, unless it is there already."""
        if "test_reference" not in self.__dict__:
            with reporter.stage("evaluating full precision on the test images") as report:
                self.__dict__["test_reference"] = self._reference(report)

    def _reference(self, report: Report | None) -> Outputs:
        from bitplan.simulate import Simulator

        simulator = Simulator(self.network, self.weights)

        def run(images: NDArray[Any]) -> Outputs:
            return {name: value.numpy() for name, value in simulator.outputs(images).items()}

        return outputs_of(run, self.data.test_x, self.batch, report)

    def one_image(self, batch: int) -> Mapping[str, NDArray[Any]]:
        """`batch` raw test images by input name, for timing."""
        images = np.resize(self.data.test_x, (batch, *self.data.shape))
        return {self.network.inputs[0].name: np.ascontiguousarray(images)}


def is_example(config: Config) -> bool:
    """Whether neither a model nor data were named, so that the embedded example is meant."""
    return config.model is None and config.data is None


def load_trained(config: Config, reporter: Reporter) -> Trained:
    """Loads model and data as configured, captures the network and applies menu, pins and exclusions."""
    require_package("torch", "capturing and measuring a network")
    if is_example(config):
        if config.weights is not None:
            raise UsageError("--weights is given without --model; name the function that builds the network")
        reporter.say("no model was named: working on the [bold]embedded example[/] (Fashion-MNIST, residual network)")
    elif config.model is None or config.data is None:
        missing, given = ("model", "data") if config.model is None else ("data", "model")
        raise UsageError(f"--{given} is given without --{missing}; name both, or neither for the embedded example")
    with reporter.stage("loading and capturing the network") as report:
        parts = _example(config, report) if is_example(config) else _user(config, report)
    return trained_from(*parts, config, reporter)


def trained_from(network: Network, weights: Weights, data: Dataset, config: Config, reporter: Reporter) -> Trained:
    """A captured network with the menu that the configuration asks for. Raises UsageError for networks with several inputs,
    DataError for labels that do not fit."""
    if len(network.inputs) != 1:
        raise UsageError(
            f"the network has the inputs {', '.join(node.name for node in network.inputs)}; the command line handles one "
            "input, plan networks with several from Python"
        )
    check_labels_fit(network, data.test_y)
    menu = menu_for(network, encodings=config.encodings or None, pins=config.pin, exclude=config.exclude)
    parameters = sum(array.size for name, array in weights.items() if name.endswith((".weight", ".bias")))
    reporter.say(
        f"{len(network.layers)} layers, {parameters:,} parameters; {len(data.calibration_x)} calibration images, "
        f"{len(data.test_x)} test images{'' if data.test_y is not None else ' without labels'}"
    )
    return Trained(network, weights, data, menu)


def _example(config: Config, report: Report) -> tuple[Network, Weights, Dataset]:
    report(0, LOADING, "torch")
    import torch

    from bitplan.capture import capture
    from bitplan.example import PREPROCESSING, example_data, example_module

    report(1, LOADING, "images")
    data = example_data()
    report(2, LOADING, "capturing")
    preprocessing = config.preprocessing_over(PREPROCESSING)
    network, weights = capture(example_module(), torch.zeros(2, *data.shape), preprocessing=preprocessing)
    return network, weights, data


def _user(config: Config, report: Report) -> tuple[Network, Weights, Dataset]:
    report(0, LOADING, "model")
    from bitplan.model import load_model

    assert config.model is not None
    assert config.data is not None
    return captured(load_model(config.model, config.weights), config.data, config, report)


def captured(
    loaded: LoadedModel, data: str | Mapping[str, Any], config: Config, report: Report
) -> tuple[Network, Weights, Dataset]:
    """A model as a network, with its data: as `--data` names it, or arrays named as in an .npz file."""
    import torch

    from bitplan.capture import capture

    report(1, LOADING, "images")
    preprocessing = config.preprocessing_over(loaded.preprocessing)
    dataset = load_data(
        data,
        calibration=config.calibration_size,
        limit=config.test_size,
        seed=config.seed,
        preprocessing=preprocessing,
        input_shape=loaded.example_shape,
    )
    report(2, LOADING, "capturing")
    try:
        network, weights = capture(loaded.module, torch.zeros(2, *dataset.shape), preprocessing=preprocessing)
    except UnsupportedError as error:
        raise named_in_file(error, loaded.module) from error
    return network, weights, dataset
