"""What a hybrid job starts from: the user's module, its leaves, images and menu."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

from torch import nn

from bitplan.config import Config
from bitplan.data import Dataset, load_data
from bitplan.errors import UsageError
from bitplan.evaluate import Outputs, check_labels_fit
from bitplan.hybrid.leaves import Found, Leaf, find_leaves
from bitplan.hybrid.network import HybridNetwork, hybrid_network, hybrid_weights
from bitplan.hybrid.outputs import outputs_network
from bitplan.hybrid.runner import Runner, with_largest_batch
from bitplan.model import load_model
from bitplan.network import Network, Preprocessing, Shape
from bitplan.policies.menu import menu_for
from bitplan.progress import Report, Reporter
from bitplan.trained import Trained, is_example
from bitplan.user_code import require_package

LARGEST_BATCH = 16


@dataclass(frozen=True)
class HybridTrained(Trained):
    """`network` and `weights` are those of the leaves; `kept`: the layers that stay in torch, and why."""

    network: HybridNetwork
    runner: Runner
    found: Found

    @property
    def leaves(self) -> tuple[Leaf, ...]:
        return self.found.leaves

    def _reference(self, report: Report | None) -> Outputs:
        return self.runner.outputs(self.data.test_x, report)

    @cached_property
    def outputs_network(self) -> Network:
        """Names and shapes of the module's outputs."""
        return outputs_network(self.runner.outputs(self.data.test_x[: self.runner.batch]))


def load_module(config: Config) -> tuple[nn.Module, Preprocessing, Shape | None]:
    """The module that the configuration names (or the embedded example's), the preprocessing and the images' shape
    where that is known."""
    if is_example(config):
        from bitplan.example import PREPROCESSING, example_module

        return example_module().eval().requires_grad_(False), config.preprocessing_over(PREPROCESSING), None
    assert config.model is not None
    loaded = load_model(config.model, config.weights)
    return loaded.module, config.preprocessing_over(loaded.preprocessing), loaded.example_shape


def load_hybrid(config: Config, reporter: Reporter) -> HybridTrained:
    """Loads model and data as configured and finds the leaves. Raises UsageError where there is none."""
    require_package("torch", "replacing layers of a network")
    _check(config)
    with reporter.stage("loading the network and finding its layers") as report:
        report(0, 3, "model")
        module, preprocessing, shape = load_module(config)
        report(1, 3, "images")
        data = _data(config, preprocessing, shape)
        report(2, 3, "layers")
        runner = Runner(module, preprocessing, config.batch)
        example = runner.prepared(data.calibration_x[: config.batch])
        runner(example)  # says what is wrong with the model, if anything is
        found = find_leaves(module, example)
        network = hybrid_network(found.leaves)
        count = min(len(data.calibration_x), 4 * LARGEST_BATCH)
        runner = with_largest_batch(runner, data.calibration_x[:count], LARGEST_BATCH)
    menu = menu_for(network, encodings=config.encodings or None, pins=config.pin, exclude=config.exclude)
    trained = HybridTrained(network, hybrid_weights(found.leaves), data, menu, runner, found)
    check_labels_fit(trained.outputs_network, data.test_y)
    calls = sum(leaf.call_count for leaf in found.leaves)
    reporter.say(
        f"{len(found.leaves)} layers become drop-ins ({calls:g} calls in an inference), outputs "
        f"{', '.join(trained.outputs_network.outputs)}; {len(data.calibration_x)} calibration images, "
        f"{len(data.test_x)} test images{'' if data.test_y is not None else ' without labels'}"
    )
    for name, reason in found.kept.items():
        reporter.say(f"[dim]{name} stays in torch: {reason}[/]")
    return trained


def _check(config: Config) -> None:
    if (config.model is None) != (config.data is None):
        missing, given = ("model", "data") if config.model is None else ("data", "model")
        raise UsageError(f"--{given} is given without --{missing}; name both, or neither for the embedded example")
    if config.memory is not None:
        raise UsageError("--memory cannot be kept with --hybrid: what torch needs is not known; drop one of them")
    if config.jobs != 1 or config.backend != "loky":
        raise UsageError("with --hybrid the module is measured in this process; leave out --jobs and --backend")


def _data(config: Config, preprocessing: Preprocessing, shape: Shape | None) -> Dataset:
    if is_example(config):
        from bitplan.example import example_data

        return example_data()
    assert config.data is not None
    return load_data(
        config.data,
        calibration=config.calibration_size,
        limit=config.test_size,
        seed=config.seed,
        preprocessing=replace(preprocessing),
        input_shape=shape,
    )
