"""Polishing: never outside the limits, never worse on either half, within its budget, the same again."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitplan.errors import UsageError
from bitplan.optimizer.build_problem import build_problem
from bitplan.optimizer.check import feasible
from bitplan.optimizer.plan import plan
from bitplan.optimizer.polish import Polished, polish
from bitplan.optimizer.predict import Predictor, predict
from bitplan.policies.policy_file import policy_hash, read_policy, write_policy
from bitplan.targets import Targets
from bitplan.variant import Variant

MakeCase = Callable[..., Any]


class Truth:
    """What a policy really costs: its prediction and an error of its own, on three images fitted to and five others."""

    def __init__(self, case: Any, spread: float = 0.3) -> None:
        self.predictor = Predictor(case.network, case.loss)
        self.spread = spread
        self.asked: list[dict[str, Variant]] = []

    def __call__(self, variants: Mapping[str, Variant]) -> tuple[Any, Any]:
        self.asked.append(dict(variants))
        return self.losses(variants)

    def losses(self, variants: Mapping[str, Variant]) -> tuple[Any, Any]:
        text = str(sorted((layer, str(variant)) for layer, variant in variants.items()))
        random = np.random.default_rng(zlib.crc32(text.encode()))
        loss = (self.predictor.total_loss(variants) or 0.0) + random.normal(0, self.spread)
        return (
            (loss + random.normal(0, 0.02, 3)).astype(np.float32),
            (loss + random.normal(0, 0.02, 5)).astype(np.float32),
        )


def targets_of(case: Any) -> Targets:
    smallest = plan(case.network, case.loss, case.device, Targets(objective="bytes"), case.menu, threads=2, batch=3)
    fastest = plan(case.network, case.loss, case.device, Targets(objective="latency"), case.menu, threads=2, batch=3)
    size, latency = smallest.predicted["file_bytes"] or 0, fastest.predicted["latency_ms"] or 0
    memory = 1.3 * (smallest.predicted["resident_bytes"] or 0)
    return Targets(bytes=int(2 * size), latency=1.3e-3 * latency, memory=int(memory))


def polished(case: Any, targets: Targets, truth: Any, evaluations: int, **more: Any) -> Polished:
    best = plan(case.network, case.loss, case.device, targets, case.menu, threads=2, batch=3)
    return polish(
        case.network,
        best,
        case.loss,
        case.device,
        targets,
        case.menu,
        truth,
        evaluations=evaluations,
        threads=2,
        batch=3,
        **more,
    )


@pytest.mark.parametrize("seed", [0, 1, 3, 4])
def test_limits_are_kept_and_neither_half_gets_worse(random_case: MakeCase, seed: int) -> None:
    case = random_case(seed, nodes=9, layers=4, low=seed % 2 == 1)
    targets, truth = targets_of(case), Truth(case)
    found = polished(case, targets, truth, 40)
    assert found.evaluations == len(truth.asked) <= 40
    for variants in truth.asked:
        figures = predict(case.network, variants, case.loss, case.device, threads=2, batch=3)
        assert figures["file_bytes"] <= targets.bytes  # type: ignore[operator]
        assert figures["resident_bytes"] <= targets.memory  # type: ignore[operator]
        assert figures["latency_ms"] <= 1e3 * targets.latency * (1 + 1e-9)  # type: ignore[operator]
    steps = [found.before, *(swap.after for swap in found.swaps)]
    assert found.after == steps[-1]
    for earlier, later in pairwise(steps):
        assert later.fitted < earlier.fitted
        assert later.held_back < earlier.held_back
    fitted, held_back = truth.losses(found.policy.variants)
    assert found.after.fitted == pytest.approx(fitted.mean())
    assert found.after.held_back == pytest.approx(held_back.mean())
    assert found.policy.settings["polish"]["accepted"] == len(found.swaps)


def test_with_time_enough_no_neighbour_is_left_that_is_better(random_case: MakeCase) -> None:
    case = random_case(3, nodes=8, layers=3)
    targets, truth = targets_of(case), Truth(case)
    found = polished(case, targets, truth, 10_000)
    assert found.swaps
    program = build_problem(
        case.network, case.menu, targets, loss_profile=case.loss, device_profile=case.device, threads=2, batch=3
    )
    base = dict(found.policy.variants)
    for layer, variants in case.menu.items():
        for variant in variants:
            other = base | {layer: variant}
            if variant != base[layer] and feasible(program.problem, program.choices(other)) and other in truth.asked:
                halves = [float(half.mean()) for half in truth.losses(other)]
                assert halves[0] >= found.after.fitted or halves[1] >= found.after.held_back


@pytest.mark.parametrize("pairs", [False, True])
def test_swaps_come_in_the_order_of_their_predicted_loss(random_case: MakeCase, paired: MakeCase, pairs: bool) -> None:
    case = random_case(0, nodes=9, layers=4)
    case = paired(case, 0) if pairs else case
    truth = Truth(case)
    worse = lambda variants: tuple(half + 1000 * (len(truth.asked) > 1) for half in truth(variants))
    found = polished(case, targets_of(case), worse, 25)
    assert not found.swaps
    scores = [truth.predictor.total_loss(variants) or 0.0 for variants in truth.asked[1:]]
    assert all(a <= b + 1e-6 for a, b in pairwise(scores))


def test_a_swap_that_helps_on_one_half_only_is_refused(random_case: MakeCase) -> None:
    case = random_case(0, nodes=9, layers=4)
    asked = 0

    def overfitting(variants: Mapping[str, Variant]) -> tuple[Any, Any]:
        nonlocal asked
        asked += 1
        return np.full(3, 10.0 / asked, np.float32), np.full(3, float(asked), np.float32)

    found = polished(case, targets_of(case), overfitting, 12)
    assert not found.swaps
    assert asked == found.evaluations == 12
    assert found.policy.certificate.status == "optimal"


def test_a_gain_within_the_noise_is_refused(random_case: MakeCase) -> None:
    case = random_case(0, nodes=9, layers=4)
    random, asked = np.random.default_rng(0), 0

    def noisy(variants: Mapping[str, Variant]) -> tuple[Any, Any]:
        nonlocal asked
        asked += 1  # lower on either half, by far less than images differ
        noise = random.normal(0, 1, 50).astype(np.float32)
        noise -= noise.mean()
        return noise - 0.001 * asked, noise - 0.001 * asked

    assert not polished(case, targets_of(case), noisy, 12).swaps

    def clear(variants: Mapping[str, Variant]) -> tuple[Any, Any]:
        nonlocal asked
        asked += 1
        return np.full(50, -0.001 * asked, np.float32), np.full(50, -0.001 * asked, np.float32)

    assert len(polished(case, targets_of(case), clear, 12).swaps) == 11


def test_an_interrupted_search_goes_on_with_the_same_result(random_case: MakeCase, tmp_path: Path) -> None:
    case = random_case(4, nodes=9, layers=4)
    targets, journal = targets_of(case), tmp_path / "polish.journal"
    expected = polished(case, targets, Truth(case), 30)

    class Killed(Exception):
        pass

    truth = Truth(case)

    def dying(variants: Mapping[str, Variant]) -> tuple[Any, Any]:
        if len(truth.asked) == 11:
            raise Killed
        return truth(variants)

    with pytest.raises(Killed):
        polished(case, targets, dying, 30, journal=journal, key="a")
    rest = Truth(case)
    found = polished(case, targets, rest, 30, journal=journal, key="a")
    assert (found.swaps, found.after, policy_hash(found.policy)) == (
        expected.swaps,
        expected.after,
        policy_hash(expected.policy),
    )
    assert len(truth.asked) + len(rest.asked) == expected.evaluations
    again = Truth(case)
    polished(case, targets, again, 30, journal=journal, key="another")
    assert len(again.asked) == expected.evaluations


def test_the_certificate_says_what_the_swaps_cost_in_the_program(random_case: MakeCase, tmp_path: Path) -> None:
    case = random_case(3, nodes=8, layers=3)
    found = polished(case, targets_of(case), Truth(case, 1.0), 60)
    certificate = found.policy.certificate
    assert found.swaps
    assert certificate.status == "feasible"
    assert certificate.objective == pytest.approx(found.policy.predicted["loss"])
    assert certificate.bound is not None
    assert certificate.objective >= certificate.bound
    write_policy(tmp_path / "policy.json", found.policy)
    assert policy_hash(read_policy(tmp_path / "policy.json")) == policy_hash(found.policy)


def test_what_cannot_be_polished_is_said(random_case: MakeCase) -> None:
    case = random_case(0, nodes=8, layers=3)
    policy = plan(case.network, case.loss, case.device, Targets(), case.menu, threads=2, batch=3)
    profiles = (case.loss, case.device)
    with pytest.raises(UsageError, match="objective is bytes"):
        polish(case.network, policy, *profiles, Targets(objective="bytes"), case.menu, Truth(case), evaluations=9)
    with pytest.raises(UsageError, match="allow more"):
        polish(case.network, policy, *profiles, Targets(), case.menu, Truth(case), evaluations=1)
    with pytest.raises(UsageError, match="breaks the limits"):
        polish(
            case.network,
            policy,
            *profiles,
            Targets(bytes=10),
            case.menu,
            Truth(case),
            evaluations=9,
            threads=2,
            batch=3,
        )
