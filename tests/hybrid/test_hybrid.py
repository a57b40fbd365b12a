"""`optimize --hybrid` on a detector that cannot be captured whole."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn

from bitplan.config import Config
from bitplan.errors import DataError, UsageError
from bitplan.formats import Range
from bitplan.hybrid import device_profile, load_hybrid, loss_profile, result_note
from bitplan.hybrid.leaves import Call, find_leaves
from bitplan.hybrid.loss import hybrid_hashes
from bitplan.hybrid.outputs import arrays_of, flatten, joined
from bitplan.hybrid.runner import Runner, with_largest_batch
from bitplan.hybrid.timing import time_module
from bitplan.kernels.torch_modules import Conv2d, replace_layers
from bitplan.network import Preprocessing
from bitplan.policies.policy_file import read_policy
from bitplan.profiles.device import Latency
from bitplan.profiles.measure_policy import TimedArtifact
from bitplan.progress import Reporter
from bitplan.result import MISSED
from bitplan.variant import FLOAT32, Variant
from bitplan.workflow import optimise

Command = Callable[..., Any]
QUIET = Reporter(quiet=True)
LAYERS = ["stem.0", "depthwise", "down", "lateral", "head", "token", "classify"]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Timing without processes: the rest takes 0.2 ms, the float module 1 ms, the module with drop-ins 0.6 ms."""
    asked: list[dict[str, Any]] = []

    def timed(config: Config, inputs: Any, **options: Any) -> TimedArtifact:
        asked.append(options)
        seconds = 2e-4 if options.get("rest") else 6e-4 if "artifact" in options else 1e-3
        latency = Latency(seconds, seconds, seconds, 200)
        from bitplan.profiles.anchor import measure_anchor

        return TimedArtifact(latency, measure_anchor(20), latency)

    monkeypatch.setattr("bitplan.hybrid.latency.time_module", timed)
    monkeypatch.setattr("bitplan.hybrid.realise.time_module", timed)
    return asked


def config(**given: Any) -> Config:
    usual = {
        "model": "detector_network:build",
        "data": "data.npz",
        "hybrid": True,
        "encodings": ["float32", "int8", "binary@u2"],
        "compare": ["none"],
        "output": "out",
    }
    return Config(**(usual | given))


def test_leaves_are_found_with_their_calls_and_reasons(folder: Path) -> None:
    trained = load_hybrid(config(), QUIET)
    assert [leaf.name for leaf in trained.leaves] == LAYERS
    by_name = {leaf.name: leaf for leaf in trained.leaves}
    assert by_name["head"].calls == (Call((24, 8, 8), 1.0), Call((24, 4, 4), 1.0))
    assert by_name["token"].calls == (Call((16, 24), 1.0),)
    assert trained.network.by_name["head"].shape == (8, 8, 8)
    assert trained.network.by_name["depthwise"].op.groups == 16
    assert "reflect" in trained.found.kept["reflect"]
    assert trained.found.kept["unused"] == "it was not called"
    assert trained.outputs_network.outputs == ("boxes.0", "boxes.1", "scores")  # anchors are no outputs of images


class Odd(nn.Module):
    """Layers that are called in ways of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.regions = nn.Conv2d(3, 4, 3)
        self.rows = nn.Linear(4, 5)
        self.tied = nn.Linear(5, 6)
        self.wide = nn.Linear(6, 6)
        self.wide.double()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        regions = self.regions(torch.cat([x, x, x]))
        rows = self.rows(regions.mean((2, 3)))
        y = self.tied(rows[: len(x)]) @ self.tied.weight
        return y + self.wide(torch.zeros(1, 6, dtype=torch.float64)).float()[:, :5]


def test_calls_on_other_batches_and_tied_weights() -> None:
    found = find_leaves(Odd(), torch.zeros(2, 3, 8, 8))
    assert {leaf.name: leaf.calls for leaf in found.leaves} == {
        "regions": (Call((3, 8, 8), 3.0),),
        "rows": (Call((3, 4), 1.0),),
    }
    assert "other code reads its weight" in found.kept["tied"]
    assert "float64" in found.kept["wide"]


def test_outputs_are_flattened_by_path() -> None:
    value = {"a": torch.zeros(2, 3), "b": [torch.ones(2), (torch.zeros(2, 1, 1), "text")], "n": torch.arange(2)}
    assert list(flatten(value)) == ["a", "b.0", "b.1.0"]
    assert {name: array.shape for name, array in arrays_of(value, 2).items()} == {
        "a": (2, 3),
        "b.0": (2, 1),
        "b.1.0": (2, 1, 1),
    }
    assert list(flatten(torch.zeros(1))) == ["output"]
    with pytest.raises(DataError, match="before non-maximum suppression"):
        arrays_of([torch.zeros(5, 4)], 2)
    with pytest.raises(DataError, match="the output 'a' has the shape"):
        joined([{"a": np.zeros((1, 2), np.float32)}, {"a": np.zeros((1, 3), np.float32)}])


def test_a_module_that_mixes_images_is_called_with_as_many_as_it_will_be() -> None:
    class Mixes(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.flatten(1) - x.mean()

    images = np.random.default_rng(0).integers(0, 256, (8, 1, 2, 2), np.uint8)
    assert with_largest_batch(Runner(Mixes(), Preprocessing(), 1), images, 4).batch == 1
    assert with_largest_batch(Runner(nn.Flatten(), Preprocessing(), 1), images, 4).batch == 4


def test_the_loss_of_a_leaf_is_what_its_drop_in_costs(folder: Path) -> None:
    trained = load_hybrid(config(), QUIET)
    before = trained.runner.outputs(trained.data.calibration_x)
    profile = loss_profile(trained, config(), QUIET)
    assert profile.metric == "squared_error"
    assert set(profile.layers) == set(LAYERS)
    for layer in LAYERS:
        assert profile.loss(layer, FLOAT32) == 0
        assert profile.loss(layer, Variant("int8")) > 0
    assert profile.loss("lateral", Variant("int8")) < profile.loss("lateral", Variant("binary", "u2"))
    after = trained.runner.outputs(trained.data.calibration_x)
    assert all(np.array_equal(before[name], after[name]) for name in before)  # the module is as it was
    again = loss_profile(load_hybrid(config(), QUIET), config(), QUIET)
    assert {k: v.tolist() for k, v in again.increases.items()} == {k: v.tolist() for k, v in profile.increases.items()}


def test_losses_depend_on_the_sources_of_layer_mode(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    trained = load_hybrid(config(), QUIET)
    before = hybrid_hashes(trained, trained.data.calibration_x, None)
    sources = tmp_path / "sources"
    shutil.copytree(str(files("bitplan.hybrid")), sources)
    monkeypatch.setattr(
        "bitplan.profiles.measure_loss.files",
        lambda package: sources if package == "bitplan.hybrid" else files(package),
    )
    assert hybrid_hashes(trained, trained.data.calibration_x, None) == before
    with (sources / "twin.py").open("a") as file:
        file.write("# another one\n")
    after = hybrid_hashes(trained, trained.data.calibration_x, None)
    assert {name for name in before if before[name] != after[name]} == {"encodings"}


def test_an_interrupted_loss_profile_goes_on(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BITPLAN_CACHE", str(tmp_path / "own"))
    trained = load_hybrid(config(), QUIET)
    from bitplan.hybrid import loss

    measured = loss._increases
    calls = []

    def interrupted(*arguments: Any) -> Any:
        calls.append(arguments[1].name)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return measured(*arguments)

    monkeypatch.setattr(loss, "_increases", interrupted)
    with pytest.raises(KeyboardInterrupt):
        loss_profile(trained, config(), QUIET)
    assert list((tmp_path / "own" / "loss").glob("*.journal"))
    loss_profile(trained, config(), QUIET)
    choices = sum(variant != FLOAT32 for variants in trained.menu.values() for variant in variants)
    assert len(calls) == 1 + choices  # the three that were finished are not measured again
    assert not list((tmp_path / "own" / "loss").glob("*.journal"))


def test_latencies_count_every_call_and_the_rest(folder: Path, quick: list[dict[str, Any]]) -> None:
    trained = load_hybrid(config(), QUIET)
    profile = device_profile(trained, config(), QUIET)
    assert [options.get("rest", False) for options in quick] == [True, False]
    variants = {name: Variant("int8") for name in LAYERS}
    total = profile.predict(trained.network, variants)
    from bitplan.profiles.steps import policy_steps

    steps = {name: profile.latency(key).median for name, key in policy_steps(trained.network, variants).items()}
    assert all(steps[name] > 0 for name in LAYERS)
    inputs = {name: seconds for name, seconds in steps.items() if name not in LAYERS}
    assert [name for name, seconds in inputs.items() if seconds] == ["stem.0.input"]  # where the rest stands
    assert 1e-4 < inputs["stem.0.input"] < 4e-4
    assert total == pytest.approx(sum(steps.values()))


def test_the_main_job(folder: Path, quick: list[dict[str, Any]]) -> None:
    result = optimise(config(budget="7kB", target_latency="100ms", objective="loss"), QUIET)
    assert result.status == "met"
    out = folder / "out"
    artifact, policy = out / "network.bitplan", read_policy(out / "policy.json")
    assert [layer.name for layer in policy.layers] == LAYERS
    assert artifact.stat().st_size == result.policy.predicted["file_bytes"] <= 7000
    assert "replace_layers(build(), " in (out / "LOAD.md").read_text()
    assert result.outcome is not None and result.outcome.latency is not None
    assert result.outcome.latency.median == pytest.approx(0.6)
    # What was measured is what a user gets.
    trained = load_hybrid(config(), QUIET)
    module = replace_layers(trained.runner.module, artifact)
    assert isinstance(module.get_submodule("stem.0"), Conv2d)
    outputs = Runner(module, trained.runner.preprocessing, 1).outputs(trained.data.test_x)
    reference = load_hybrid(config(), QUIET).test_reference
    from bitplan.evaluate import evaluate

    evaluation = evaluate(trained.outputs_network, reference, outputs, None)
    assert result.outcome.evaluation is not None
    assert evaluation.loss == pytest.approx(result.outcome.evaluation.loss, rel=1e-3)


def test_simulated_and_replaced_modules_agree(folder: Path) -> None:
    """Twins, which losses are measured with, against drop-ins, which run."""
    from bitplan.hybrid.ranges import calibrate_inputs
    from bitplan.hybrid.realise import drop_ins
    from bitplan.hybrid.recover import leaf_inputs, recovered
    from bitplan.hybrid.twin import Twin, leaf_simulator
    from bitplan.kernels.artifact import pack_artifact
    from bitplan.kernels.layer_set import LayerSet
    from bitplan.policies.realise import correct

    trained = load_hybrid(config(), QUIET)
    images = trained.data.calibration_x
    held = calibrate_inputs(trained.runner, trained.leaves, images, ("u8", "u2"))
    encoded, twins = {}, {}
    for leaf in trained.leaves:
        variant = Variant("int8") if leaf.name in ("stem.0", "depthwise", "classify") else Variant("binary", "u2")
        inputs = leaf_inputs(trained.runner, leaf, images)
        encoded[leaf.name] = recovered(leaf, variant, held[leaf.name], inputs, inputs, [correct])
        twins[leaf.module] = Twin(leaf_simulator(leaf), encoded[leaf.name], held[leaf.name])
    ranges: dict[str, dict[str, Range]] = {f"{name}.input": ranges for name, ranges in held.items()}
    artifact = pack_artifact(trained.network, trained.weights, encoded, ranges)
    with trained.runner.swapped(twins):
        simulated = trained.runner.outputs(images)
    with trained.runner.swapped(drop_ins(trained, LayerSet(artifact, threads=2))):
        found = trained.runner.outputs(images)
    for name in simulated:
        spread = np.abs(simulated[name]).max()
        # A value at a rounding threshold may fall on the other side after torch's own float operations.
        assert np.median(np.abs(found[name] - simulated[name])) <= 1e-5 * spread
        assert np.mean(np.abs(found[name] - simulated[name]) > 1e-3 * spread) < 0.05


def test_a_target_that_only_the_prediction_meets_is_missed(folder: Path, quick: list[dict[str, Any]]) -> None:
    result = optimise(config(target_latency="0.55ms", rounds=0, objective="bytes", max_loss=1e9), QUIET)
    assert result.status == MISSED
    assert result.exit_code == 4
    assert result.misses == ["latency 0.600 ms > 0.550 ms"]


def test_a_target_below_the_rest_is_infeasible(folder: Path, command: Command, quick: list[dict[str, Any]]) -> None:
    arguments = ["--model", "detector_network:build", "--data", "data.npz", "--encodings", "float32,int8", "--hybrid"]
    called = command(*arguments, "--target-latency", "0.1ms", "--dry-run")
    assert called.code == 3
    assert "latency" in called.err


def test_a_classifier_has_accuracy_and_a_drop(folder: Path, quick: list[dict[str, Any]]) -> None:
    result = optimise(config(model="detector_network:build_classifier", max_drop="100%", objective="bytes"), QUIET)
    assert result.status == "met"
    assert result.outcome is not None and result.outcome.evaluation is not None
    assert result.outcome.evaluation.accuracy is not None
    assert result.outcome.evaluation.loss_metric == "kl"


def test_an_edited_policy_can_be_carried_out(folder: Path, command: Command, quick: list[dict[str, Any]]) -> None:
    arguments = ["--model", "detector_network:build", "--data", "data.npz", "--hybrid"]
    assert (
        command(*arguments, "--budget", "7kB", "--encodings", "int8,binary@u2", "--compare", "none", "-o", "out").code
        == 0
    )
    text = (folder / "out" / "policy.json").read_text()
    edited = folder / "edited.json"
    content = json.loads(text)
    content["layers"] = [{"name": name, "encoding": "int8"} for name in LAYERS]
    edited.write_text(json.dumps(content))
    called = command("realise", str(edited), *arguments, "-o", "again", "--json", "--quiet")
    assert called.code in (0, 4)
    assert {layer["encoding"] for layer in called.json["layers"]} == {"int8"}
    assert (folder / "again" / "LOAD.md").exists()


def test_without_hybrid_the_error_tells_of_it(folder: Path, command: Command) -> None:
    called = command("--model", "detector_network:build", "--data", "data.npz")
    assert called.code == 1
    assert "--hybrid" in called.err
    assert "torch.ops" not in called.err  # the graph that torch.export prints when it fails
    assert "torch.ops" in command("--model", "detector_network:build", "--data", "data.npz", "--verbose").err


@pytest.mark.parametrize(
    "options, code, text",
    [
        (["--model", "detector_network:build_ragged", "--data", "data.npz"], 1, "of a fixed shape"),
        (["--model", "detector_network:build_no_layers", "--data", "data.npz"], 2, "no Conv2d or Linear"),
        (["--model", "detector_network:build", "--data", "data.npz", "--memory", "1MB"], 2, "--memory cannot be kept"),
        (["--model", "detector_network:build"], 2, "without --data"),
        (["--model", "detector_network:build", "--data", "data.npz", "--loss-metric", "task"], 2, "task loss needs"),
    ],
)
def test_bad_input(folder: Path, command: Command, options: list[str], code: int, text: str) -> None:
    called = command(*options, "--hybrid", "--encodings", "float32", "--dry-run")
    assert called.code == code, called.err
    assert text in called.err.replace("\n", " ")


def test_profiles_alone_are_refused(folder: Path, command: Command) -> None:
    called = command("profile", "--model", "detector_network:build", "--data", "data.npz", "--hybrid")
    assert called.code == 2
    assert "main job" in called.err


def test_stored_profiles_cannot_be_planned_from(folder: Path, command: Command) -> None:
    called = command("plan", "out", "--hybrid", "--budget", "7kB")
    assert called.code == 2
    assert "--hybrid --dry-run" in called.err


@pytest.mark.parametrize(
    ("model", "line"),
    [
        ("detector_network:build", "from detector_network import build"),
        ("detector_network:make", "from detector_network import make as build"),
        ("torchvision:resnet18", "from torchvision.models import resnet18 as build"),
    ],
)
def test_the_note_imports_the_function_of_the_model(model: str, line: str) -> None:
    assert f"\n{line}\n" in result_note(config(model=model))


def test_the_key_in_a_file_must_be_true_or_false(folder: Path) -> None:
    with pytest.raises(UsageError, match="hybrid must be true or false"):
        config(hybrid="sometimes")


def test_the_module_is_timed_in_a_process_of_its_own(folder: Path) -> None:
    trained = load_hybrid(config(), QUIET)
    inputs = trained.one_image(1)
    whole = time_module(config(), inputs, runs=20, seconds=1)
    rest = time_module(config(), inputs, rest=True, runs=20, seconds=1)
    assert 0 < rest.latency.median < whole.latency.median
