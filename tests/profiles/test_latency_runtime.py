"""Measuring with the real kernels: what is timed is what runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bitplan.compute import kernels_for
from bitplan.encodings import default_menu
from bitplan.errors import BitplanError
from bitplan.kernels import Runtime
from bitplan.network import RELU, Add, Concat, Conv2d, Input, Linear, MaxPool, Mean, Network, Node, Softmax
from bitplan.profiles.anchor import anchor_artifact, anchor_network
from bitplan.profiles.executor import load_runtime
from bitplan.profiles.fingerprint import this_machine
from bitplan.profiles.measure_latency import measure, measure_anchor
from bitplan.profiles.measure_policy import measure_policy
from bitplan.profiles.stand_in import stand_in_artifact, stand_in_input
from bitplan.profiles.steps import all_keys, policy_steps
from bitplan.variant import FLOAT32, Variant

pytest.importorskip("bitplan.kernels._runtime", reason="the runtime is not built")


INT8, APB, LOW, LOWEST = map(Variant.parse, ("int8", "apb:kept=0.02", "binary@u2", "ternary@u1"))


def network() -> Network:
    conv = Conv2d((3, 3), padding=(1, 1, 1, 1), activation=RELU)
    return Network(
        (
            Node("image", Input(), (), (3, 32, 32)),
            Node("a", conv, ("image",), (32, 32, 32)),
            Node("b", conv, ("a",), (32, 32, 32)),
            Node("c", conv, ("b", "a"), (32, 32, 32)),
            Node("sum", Add(), ("b", "c"), (32, 32, 32)),
            Node("both", Concat(), ("sum", "a"), (64, 32, 32)),
            Node("pool", MaxPool((2, 2), (2, 2)), ("both",), (64, 16, 16)),
            Node("mean", Mean(), ("pool",), (64,)),
            Node("head", Linear(), ("mean",), (10,)),
            Node("odds", Softmax(), ("head",), (10,)),
        ),
        ("odds",),
    )


def test_the_runtime_runs_exactly_the_steps_that_keys_are_made_for() -> None:
    rng = np.random.default_rng(0)
    menu, inputs = (*default_menu(), LOW, LOWEST), stand_in_input(network())
    for _ in range(20):
        policy = {layer.name: menu[rng.integers(len(menu))] for layer in network().layers}
        kernels = {name: str(rng.choice(kernels_for(variant))) for name, variant in policy.items()}
        executor = Runtime.from_bytes(stand_in_artifact(network(), policy, kernels=kernels))
        steps = policy_steps(network(), policy, kernels=kernels)
        assert list(executor.steps) == list(steps)
        assert executor.step_kernels == [key.kernel for key in steps.values()]
        times = executor.time_steps(inputs, 3)
        assert times.shape == (3, len(executor.steps))
        assert np.all(times >= 0)


def test_predictions_rest_on_real_time() -> None:
    """Loosely, as tests must not depend on a quiet machine; benchmarks/latency_prediction.py is the strict comparison."""
    menu = {layer.name: (INT8, APB, FLOAT32) for layer in network().layers}
    menu["c"] = (INT8, LOW)
    profile = measure(network(), menu, rounds=5)
    assert profile.entries.keys() == all_keys(network(), menu)
    profile.require_this_machine()
    policy = {**dict.fromkeys(menu, APB), "c": LOW}
    kernels = profile.fastest_kernels(network(), policy)
    assert set(kernels.values()) <= {"bytes", "bits", "lookup"}
    measured = measure_policy(stand_in_artifact(network(), policy, seed=1, kernels=kernels), stand_in_input(network()))
    assert measured.latency.samples >= 200
    assert measured.latency.low <= measured.latency.median <= measured.latency.high
    predicted = profile.predict(network(), policy) * profile.drift(measured.anchor)
    assert 1 / 3 < predicted / measured.latency.median < 3


def test_modules_of_the_current_folder_do_not_get_into_the_timing_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    for name in ("safetensors", "json", "bitplan", "numpy"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('a file of the current folder was imported')")
    monkeypatch.chdir(tmp_path)
    measured = measure_policy(anchor_artifact(), stand_in_input(anchor_network()), runs=1, seconds=0.1)
    assert measured.all_runs.samples >= measured.latency.samples >= 1


def test_a_developers_python_path_reaches_the_timing_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "safetensors.py").write_text("raise RuntimeError('found through PYTHONPATH')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(BitplanError, match="found through PYTHONPATH"):
        measure_policy(anchor_artifact(), stand_in_input(anchor_network()), runs=1, seconds=0.1)


def test_the_level_of_kernels_can_be_forced_and_is_recorded() -> None:
    menu = {layer.name: (INT8,) for layer in network().layers}
    profile = measure(network(), menu, rounds=1, isa="portable")
    assert profile.fingerprint.isa == "portable"
    assert profile.fingerprint == this_machine("portable")


def test_the_anchor_takes_time() -> None:
    assert 1e-6 < measure_anchor(20).median < 10
    executor = load_runtime(anchor_artifact(), 1)
    assert list(executor.steps) == [node.name for node in anchor_network()]


def test_an_artifact_that_cannot_be_loaded_is_an_error_that_says_why(tmp_path: Path) -> None:
    path = tmp_path / "policy.bitplan"
    path.write_bytes(anchor_artifact()[:-1])
    with pytest.raises(BitplanError, match=r"timing .*policy\.bitplan failed: .*[a-z]"):
        measure_policy(path, stand_in_input(anchor_network()))
