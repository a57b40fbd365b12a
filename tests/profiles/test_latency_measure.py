"""Measuring step latencies, against an executor whose true speed is known."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bitplan.encodings import default_menu
from bitplan.errors import UsageError
from bitplan.network import Conv2d, Input, Linear, MaxPool, Mean, Network, Node
from bitplan.profiles import anchor as anchor_module
from bitplan.profiles import measure_latency
from bitplan.profiles.anchor import measure_anchor
from bitplan.profiles.device import DeviceProfile
from bitplan.profiles.fingerprint import Fingerprint
from bitplan.profiles.measure_latency import measure
from bitplan.profiles.samples import StepSamples, middle_half, step_latency, summary, undisturbed
from bitplan.profiles.steps import all_keys, policy_steps
from bitplan.profiles.time_artifact import time_in_turn
from bitplan.variant import FLOAT32, Variant

HERE = Fingerprint("a processor", ("avx2",), "avx2", 4, "1.0")
INT8, INT4, BINARY = Variant("int8"), Variant("int4"), Variant("binary")
ANCHOR_SECONDS = 5e-4


def network() -> Network:
    conv = Conv2d((3, 3), padding=(1, 1, 1, 1))
    return Network(
        (
            Node("image", Input(), (), (3, 8, 8)),
            Node("a", conv, ("image",), (16, 8, 8)),
            Node("b", conv, ("a",), (16, 8, 8)),
            Node("c", conv, ("b", "a"), (16, 8, 8)),
            Node("pool", MaxPool((2, 2), (2, 2)), ("c",), (16, 4, 4)),
            Node("mean", Mean(), ("pool",), (16,)),
            Node("head", Linear(), ("mean",), (10,)),
        ),
        ("head",),
    )


MENU = {layer.name: (INT8, INT4, BINARY, FLOAT32) for layer in network().layers}


def true_seconds(key: str) -> float:
    """Between 10 and 100 microseconds, by a hash of the key."""
    return (10 + sum(map(ord, key)) % 91) * 1e-6


class FakeMachine:
    """Executors that report true times x the machine's level x noise, and stop now and then for a hundredfold gap."""

    def __init__(self, noise: float = 0.05, gaps: float = 0.1) -> None:
        self.rng = np.random.default_rng(0)
        self.noise, self.gaps, self.level, self.loaded = noise, gaps, 1.0, 0
        self.seconds = 0.0
        """That all runs took together."""

    def load(self, artifact: bytes, threads: int) -> Any:
        self.loaded += 1
        steps: dict[str, float] = json.loads(artifact)

        def time_steps(inputs: Mapping[str, NDArray[Any]], runs: int) -> NDArray[np.float64]:
            base = np.array(list(steps.values())) * self.level
            times = base * np.exp(self.noise * self.rng.standard_normal((runs, len(base))))
            times[0] *= 3  # caches are cold at first
            interrupted = np.flatnonzero(self.rng.random(runs) < self.gaps)
            times[interrupted, self.rng.integers(0, len(base), len(interrupted))] += 0.01
            self.seconds += times.sum()
            return np.asarray(times)

        def time_runs(inputs: Mapping[str, NDArray[Any]], runs: int) -> NDArray[np.float64]:
            return np.asarray(time_steps(inputs, runs).sum(1))

        return SimpleNamespace(steps=list(steps), time_steps=time_steps, time_runs=time_runs)


@pytest.fixture(autouse=True)
def readable_artifacts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Artifacts that say how long each step truly takes."""

    def artifact(network: Network, variants: Mapping[str, Variant], batch: int, *, kernels: Mapping[str, str]) -> bytes:
        steps = policy_steps(network, variants, 1, batch, kernels)
        return json.dumps({name: true_seconds(str(key)) for name, key in steps.items()}).encode()

    monkeypatch.setattr(measure_latency, "stand_in_artifact", artifact)
    monkeypatch.setattr(anchor_module, "anchor_artifact", lambda: json.dumps({"anchor": ANCHOR_SECONDS}).encode())


def test_every_step_of_the_menu_is_measured_close_to_the_truth_in_spite_of_noise_and_gaps() -> None:
    profile = measure(network(), MENU, load=FakeMachine().load, fingerprint=HERE)
    assert profile.entries.keys() == all_keys(network(), MENU)
    for key, latency in profile.entries.items():
        assert latency.median == pytest.approx(true_seconds(str(key)), rel=0.03)
        assert latency.low < latency.median < latency.high < 1.5 * latency.median
        assert latency.samples >= 50
    assert profile.anchor.median == pytest.approx(ANCHOR_SECONDS, rel=0.03)  # the calmer half is faster than the whole


def test_only_missing_steps_are_measured_and_the_others_stay_as_they_were() -> None:
    machine = FakeMachine()
    first = measure(network(), dict.fromkeys(MENU, (INT8, FLOAT32)), load=machine.load, fingerprint=HERE, rounds=5)
    loaded = machine.loaded
    full = measure(network(), MENU, profile=first, load=machine.load, fingerprint=HERE, rounds=5)
    assert machine.loaded > loaded
    assert {key: full.entries[key] for key in first.entries} == first.entries
    assert full.missing(all_keys(network(), MENU)) == frozenset()
    loaded = machine.loaded
    assert measure(network(), MENU, profile=full, load=machine.load, fingerprint=HERE) == full
    assert machine.loaded == loaded


def test_a_slower_hour_is_divided_out_by_the_anchor() -> None:
    machine = FakeMachine()
    first = measure(network(), dict.fromkeys(MENU, (INT8,)), load=machine.load, fingerprint=HERE)
    machine.level = 1.7
    full = measure(network(), MENU, profile=first, load=machine.load, fingerprint=HERE)
    for key, latency in full.entries.items():
        assert latency.median == pytest.approx(true_seconds(str(key)), rel=0.05)
    assert full.drift(measure_anchor(load=machine.load)) == pytest.approx(1.7, rel=0.05)


def test_an_interrupted_measurement_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure_latency, "FEWEST_POLICIES", 2)
    monkeypatch.setattr(measure_latency, "MOST_POLICIES", 2)
    path = tmp_path / "device.arrow"
    machine = FakeMachine()
    visits: list[tuple[int, int]] = []

    def interrupt_late(done: int, total: int) -> None:
        visits.append((done, total))
        if done == total - 1:
            raise KeyboardInterrupt

    save = lambda profile: profile.save(path)
    with pytest.raises(KeyboardInterrupt):
        measure(*(network(), MENU), load=machine.load, fingerprint=HERE, rounds=4, save=save, progress=interrupt_late)
    assert [done for done, _ in visits] == list(range(1, visits[-1][1]))
    partial = DeviceProfile.load(path)
    wanted = all_keys(network(), MENU)
    assert 0 < len(partial.missing(wanted)) < len(wanted)
    loaded = machine.loaded
    full = measure(network(), MENU, profile=partial, load=machine.load, fingerprint=HERE, rounds=4, save=save)
    assert DeviceProfile.load(path) == full
    assert not full.missing(wanted)
    assert machine.loaded - loaded < loaded


@pytest.mark.parametrize(
    ("level", "most"),
    [
        (1, 12),  # a visit takes some 10 ms
        (10, 6),  # some 50 ms
        (1000, 4),  # some seconds: far above the limit, but four policies are needed to spread drift
    ],
)
def test_what_is_measured_is_saved_about_every_ten_seconds(level: float, most: int) -> None:
    machine = FakeMachine(noise=0, gaps=0)
    machine.level = level
    visits, saved = 0, [(0, 0.0)]

    def count(done: int, total: int) -> None:
        nonlocal visits
        visits = done

    def save(profile: DeviceProfile) -> None:
        saved.append((visits, machine.seconds))

    menu = dict.fromkeys(MENU, default_menu())
    measure(network(), menu, load=machine.load, fingerprint=HERE, progress=count, save=save)
    groups = [((b - a) // 30, after - before) for (a, before), (b, after) in pairwise(saved)]
    assert sum(size for size, _ in groups) == visits // 30 > 12
    assert min(size for size, _ in groups) >= 4
    assert max(size for size, _ in groups[:-1]) == most
    assert groups[-1][0] <= most + 3
    assert all(seconds < 1.5 * 10 for size, seconds in groups[:-1] if size > 4)


def test_a_profile_of_another_machine_is_not_continued() -> None:
    machine = FakeMachine()
    first = measure(network(), MENU, load=machine.load, fingerprint=HERE, rounds=3)
    with pytest.raises(UsageError, match="isa is 'avx512' here and 'avx2' there"):
        measure(network(), MENU, profile=first, load=machine.load, fingerprint=replace(HERE, isa="avx512"))


def test_an_executor_that_runs_other_steps_than_expected_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure_latency, "stand_in_artifact", lambda *_, **__: b'{"image": 1e-5}')
    with pytest.raises(RuntimeError, match=r"runs the steps \['image'\]"):
        measure(network(), MENU, load=FakeMachine().load, fingerprint=HERE)


def test_threads_and_batch_are_part_of_the_keys() -> None:
    profile = measure(network(), MENU, threads=2, batch=4, load=FakeMachine().load, fingerprint=HERE, rounds=3)
    assert {(key.threads, key.batch) for key in profile.entries} == {(2, 4)}


def test_a_finished_artifact_is_timed_at_least_the_asked_number_of_times_without_cold_runs() -> None:
    machine = FakeMachine(gaps=0.02)
    artifact = json.dumps({"one": 1e-4, "two": 2e-4}).encode()
    anchor = anchor_module.Anchor(machine.load)
    measured = time_in_turn(machine.load(artifact, 1), {}, anchor, runs=210, seconds=60)
    assert 210 <= measured.latency.samples < measured.all_runs.samples
    visits = 2 * 20
    assert measured.all_runs.samples == visits * 11
    assert measured.all_runs.low <= measured.all_runs.median <= measured.all_runs.high
    assert measured.latency.median == pytest.approx(3e-4, rel=0.03)
    assert measured.latency.high < 6e-4
    assert measured.anchor.median == pytest.approx(ANCHOR_SECONDS, rel=0.03)


def test_slow_networks_are_timed_for_the_given_seconds_only() -> None:
    machine = FakeMachine()
    measured = time_in_turn(
        machine.load(b'{"one": 1e-4}', 1), {}, anchor_module.Anchor(machine.load), runs=10**9, seconds=0.0
    )
    assert 0 < measured.latency.samples < 10**9


def test_medians_of_steps_add_up_to_the_median_run_even_where_some_step_is_delayed_in_most_runs() -> None:
    rng = np.random.default_rng(0)
    times = np.full((2000, 50), 1e-5)
    times[rng.random(times.shape) < 0.05] *= 2  # a step is delayed in every twentieth run, some step in most runs
    totals = times.sum(1)
    steps = [step_latency([StepSamples(column, column[middle_half(totals)])]) for column in times.T]
    assert sum(step.median for step in steps) == pytest.approx(np.median(totals), rel=2e-3)
    assert np.median(times, 0).sum() < 0.97 * np.median(totals)
    assert all(step.low <= step.median <= step.high and step.samples == 2000 for step in steps)


def test_interrupted_runs_are_left_out_of_quantiles() -> None:
    totals = [1.0, 1.1, 1.2, 9.0, 1.3]
    assert undisturbed(totals).tolist() == [True, True, True, False, True]
    assert summary([1.0, 2.0, 3.0]).median == 2.0
