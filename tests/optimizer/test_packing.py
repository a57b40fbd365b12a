"""Plans under a memory limit keep it in the real arena, and what they claim to have proven holds of real bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import numpy as np
import pytest

from bitplan.errors import BitplanError, InfeasibleError
from bitplan.formats import derive_formats
from bitplan.kernels.arena import peak_bytes, plan_arena
from bitplan.network import Concat, Conv2d, Input, Network, Node
from bitplan.optimizer import packing
from bitplan.optimizer.build_problem import build_problem
from bitplan.optimizer.plan import plan, predict
from bitplan.optimizer.predict import Predictor
from bitplan.policies.policy import Policy
from bitplan.profiles.loss import HASHES, LossProfile
from bitplan.targets import Targets
from bitplan.variant import FLOAT32, Variant

MakeCase = Callable[..., Any]
INT8 = Variant("int8")
POLICIES = (FLOAT32, INT8)


def branching(seed: int) -> Network:
    """Four to six convolutions of different widths, each of one of the last three values, and what nobody reads
    concatenated: long and short lives of many sizes."""
    random = np.random.default_rng(seed)
    nodes = [Node("x", Input(), (), (3, 8, 8))]
    for number in range(int(random.integers(4, 7))):
        source = nodes[-int(random.integers(1, min(3, len(nodes)) + 1))].name
        width = int(random.choice([4, 8, 12, 20, 32]))
        nodes.append(Node(f"c{number}", Conv2d((3, 3), padding=(1, 1, 1, 1)), (source,), (width, 8, 8)))
    read = {name for node in nodes for name in node.inputs}
    leaves = [node for node in nodes if node.name not in read]
    if len(leaves) > 1:
        channels = sum(node.shape[0] for node in leaves)
        nodes.append(Node("cat", Concat(), tuple(node.name for node in leaves), (channels, 8, 8)))
    return Network(tuple(nodes), (nodes[-1].name,))


def profile_of(network: Network, seed: int) -> LossProfile:
    random = np.random.default_rng(seed)
    increases = {}
    for node in network.layers:
        increases[node.name, FLOAT32] = np.zeros(1, np.float32)
        increases[node.name, INT8] = np.full(1, random.uniform(0.5, 1.5), np.float32)
    return LossProfile("kl", {**dict.fromkeys(HASHES, "0"), "network": network.content_hash}, increases)


def policies(network: Network) -> Iterator[dict[str, Variant]]:
    names = [node.name for node in network.layers]
    for choice in product(POLICIES, repeat=len(names)):
        yield dict(zip(names, choice, strict=True))


def has_holes(network: Network) -> bool:
    formats = [derive_formats(network, variants) for variants in policies(network)]
    return any(plan_arena(network, f).size > peak_bytes(network, f) for f in formats)


def plan_of(network: Network, loss: LossProfile, targets: Targets) -> Policy:
    return plan(network, loss, None, targets, {n.name: POLICIES for n in network.layers}, time_limit=30)


def holey(count: int) -> list[int]:
    """Seeds of networks whose arena has holes under some policies."""
    return [seed for seed in range(400) if has_holes(branching(seed))][:count]


def test_the_plan_is_the_best_of_all_policies_whose_real_arena_fits() -> None:
    seeds = holey(6)
    assert len(seeds) == 6
    for seed in seeds:
        network = branching(seed)
        loss = profile_of(network, seed)
        figures = [predict(network, variants, loss) for variants in policies(network)]
        everything = sorted({(int(f["resident_bytes"] or 0), float(f["loss"] or 0)) for f in figures})
        for limit in sorted({resident for resident, _ in everything}):
            best = min(total for resident, total in everything if resident <= limit)
            policy = plan_of(network, loss, Targets(memory=limit))
            assert policy.certificate.status == "optimal" and policy.certificate.gap == 0
            assert (policy.predicted["resident_bytes"] or 0) <= limit
            assert policy.predicted["loss"] == pytest.approx(best, rel=1e-7), (seed, limit)
        smallest = everything[0][0]
        policy = plan_of(network, loss, Targets(objective="memory"))
        assert policy.certificate.status == "optimal"
        assert policy.predicted["resident_bytes"] == policy.certificate.objective == smallest
        with pytest.raises(InfeasibleError) as caught:
            plan_of(network, loss, Targets(memory=smallest - 1))
        assert caught.value.details == {
            "conflict": ["memory"],
            "limits": {"memory": {"asked": smallest - 1, "smallest": smallest}},
        }


@pytest.mark.parametrize("seed", range(10))
def test_every_operation_and_batch_is_accounted_for(random_case: MakeCase, seed: int) -> None:
    case = random_case(seed, nodes=8, layers=3)
    every = [dict(zip(case.menu, choice, strict=True)) for choice in product(*case.menu.values())]
    resident = [Predictor(case.network, batch=case.batch).resident_bytes(variants) for variants in every]
    targets = Targets(memory=int(min(resident) + 0.2 * (max(resident) - min(resident))))
    policy = plan(case.network, case.loss, None, targets, case.menu, batch=case.batch, time_limit=30)
    predictor = Predictor(case.network, case.loss, batch=case.batch)
    losses = [predictor.totals(v)["loss"] for v, r in zip(every, resident, strict=True) if r <= (targets.memory or 0)]
    assert policy.certificate.status == "optimal"
    assert policy.predicted["loss"] == pytest.approx(min(loss for loss in losses if loss is not None), rel=1e-7)


@pytest.fixture
def wasteful(monkeypatch: pytest.MonkeyPatch) -> int:
    """An arena planner that always leaves holes of this many bytes."""
    honest, holes = Predictor.resident_bytes, 10_000
    monkeypatch.setattr(Predictor, "resident_bytes", lambda self, variants: honest(self, variants) + holes)
    return holes


def test_a_limit_that_only_holes_exceed_is_proven_infeasible_with_the_real_smallest(wasteful: int) -> None:
    network = branching(1)
    loss = profile_of(network, 1)
    smallest = min(int(predict(network, variants, loss)["resident_bytes"] or 0) for variants in policies(network))
    with pytest.raises(InfeasibleError) as caught:
        plan_of(network, loss, Targets(memory=smallest - wasteful // 2))
    assert caught.value.details is not None
    assert caught.value.details["limits"]["memory"]["smallest"] == smallest
    assert (plan_of(network, loss, Targets(memory=smallest)).predicted["resident_bytes"] or 0) == smallest


def test_without_cuts_nothing_is_claimed_that_was_not_proven(wasteful: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "MOST_CUTS", 0)
    kinds = set()
    for seed in range(6):
        network = branching(seed)
        loss = profile_of(network, seed)
        figures = [predict(network, variants, loss) for variants in policies(network)]
        everything = sorted((int(f["resident_bytes"] or 0), float(f["loss"] or 0)) for f in figures)
        for limit in (everything[0][0] - 1, everything[0][0], everything[len(everything) // 3][0]):
            fitting = [total for resident, total in everything if resident <= limit]
            try:
                policy = plan_of(network, loss, Targets(memory=limit))
            except InfeasibleError:
                assert not fitting
                kinds.add("infeasible")
            except BitplanError as error:
                assert error.exit_code == 1
                assert "none was proven impossible" in str(error) and "the smallest policy seen" in str(error)
                assert f"needs {everything[0][0]:,} bytes" in str(error)
                kinds.add("unknown")
            else:
                certificate = policy.certificate
                assert (policy.predicted["resident_bytes"] or 0) <= limit
                assert certificate.bound is not None and certificate.bound <= min(fitting) + 1e-6
                assert certificate.objective == pytest.approx(policy.predicted["loss"], abs=1e-6)
                if certificate.status == "optimal":
                    assert policy.predicted["loss"] == pytest.approx(min(fitting), rel=1e-7)
                else:
                    assert certificate.status == "feasible" and (certificate.gap or 0) > 0
                kinds.add(certificate.status)
    assert {"unknown", "feasible"} <= kinds


def test_cuts_bind_only_the_formats_they_name(random_case: MakeCase) -> None:
    case = random_case(5, nodes=10, layers=4)
    program = build_problem(case.network, case.menu, Targets(objective="memory"), batch=case.batch)
    honest = Predictor(case.network, batch=case.batch)
    every = [dict(zip(case.menu, choice, strict=True)) for choice in product(*case.menu.values())]
    kept = [derive_formats(case.network, variants).kept for variants in every]

    class Wasteful(Predictor):
        def resident_bytes(self, variants: Any) -> int:
            holes = 777 if derive_formats(case.network, variants).kept == kept[-1] else 0
            return honest.resident_bytes(variants) + holes

    packed = packing.PackedSolver(program, Wasteful(case.network, batch=case.batch))
    packed.resident_bytes(program.choices(every[-1]))
    cut = packed.cut(program.problem)
    changed = 0
    for variants, formats in zip(every, kept, strict=True):
        choices = program.choices(variants)
        stated = max(r.total(choices) for r in program.problem.objectives)
        with_cut = max(r.total(choices) for r in cut.objectives)
        assert with_cut == stated + (777 if formats == kept[-1] else 0)
        changed += with_cut != stated
    assert 0 < changed < len(every)
