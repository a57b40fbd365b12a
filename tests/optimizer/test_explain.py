"""Explanations: every number equals that of trying all policies."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from math import ceil
from typing import Any

import pytest

from bitplan.errors import UsageError
from bitplan.optimizer.build_problem import Program, build_problem
from bitplan.optimizer.check import feasible, objective_of
from bitplan.optimizer.explain import PlanExplanation, explain_plan
from bitplan.optimizer.plan import plan, uniform
from bitplan.optimizer.predict import Predictor
from bitplan.optimizer.problem import Choices, Problem
from bitplan.optimizer.under_limits import under_limits, without_choices, without_option
from bitplan.targets import Targets

MakeCase = Callable[..., Any]


class Explained:
    """A case, its plan, the explanation, and all policies to compare with."""

    def __init__(self, case: Any, targets: Targets) -> None:
        profiles = {"threads": case.threads, "batch": case.batch}
        self.policy = plan(case.network, case.loss, case.device, targets, case.menu, time_limit=30, **profiles)
        self.found: PlanExplanation = explain_plan(
            case.network,
            self.policy,
            case.loss,
            case.device,
            targets,
            case.menu,
            alternatives=4,
            time_limit=120,
            **profiles,
        )
        self.program: Program = build_problem(
            case.network, case.menu, targets, loss_profile=case.loss, device_profile=case.device, **profiles
        )
        self.problem = self.program.problem
        self.all = [
            self.program.choices(dict(zip(case.menu, chosen, strict=True))) for chosen in product(*case.menu.values())
        ]
        self.chosen = self.program.choices(self.policy.variants)
        self.layers = len(case.menu)
        self.link = case.loss.link.loss if targets.objective == "loss" else float

    def best(self, problem: Problem) -> float | None:
        """The least objective of all policies, in its unit."""
        values = [objective_of(problem, choices) for choices in self.all if feasible(problem, choices)]
        return self.link(problem.value(min(values))) if values else None


def limited(case: Any, share: float, objective: str = "loss") -> Targets:
    """Limits on bytes and latency somewhere between the smallest and the largest policy."""
    figures = [uniform(case.network, v, case.menu, case.loss, case.device, threads=2, batch=3) for v in variants(case)]
    sizes = sorted(float(policy.predicted["file_bytes"] or 0) for policy in figures if policy)
    times = sorted(float(policy.predicted["latency_ms"] or 0) for policy in figures if policy)
    size = int(sizes[0] + share * (sizes[-1] - sizes[0]))
    latency = 1e-3 * (times[0] + 0.8 * (times[-1] - times[0]))
    if objective == "bytes":
        return Targets(loss=0.5, latency=latency, objective="bytes")
    return Targets(bytes=size, latency=latency)


def variants(case: Any) -> set[Any]:
    return {variant for allowed in case.menu.values() for variant in allowed}


@pytest.mark.parametrize("seed", [0, 1, 3, 5])
def test_limits_say_what_more_of_them_would_buy(random_case: MakeCase, seed: int) -> None:
    case = random_case(seed, nodes=8, layers=3, low=seed % 2 == 0)
    explained = Explained(case, limited(case, 0.3, "bytes" if seed == 5 else "loss"))
    found, problem = explained.found, explained.problem
    assert found.finished
    objective = explained.best(problem)
    assert objective is not None
    assert found.objective == pytest.approx(objective, abs=1e-9)
    assert {limit.target for limit in found.limits} == set(problem.limits)
    for limit in found.limits:
        resource = problem.limits[limit.target][0]
        assert resource.limit is not None
        assert limit.slack == pytest.approx((resource.limit - resource.total(explained.chosen)) * resource.resolution)
        free = explained.best(under_limits(problem, {limit.target: None}))
        assert limit.binds == (free is not None and free < objective - 1e-12)
        for share, gain in limit.gains.items():
            raised = under_limits(problem, {limit.target: resource.limit + ceil(share * abs(resource.limit))})
            assert gain.objective == pytest.approx(explained.best(raised), abs=1e-9)
            assert gain.bound == pytest.approx(gain.objective, abs=1e-9)
        better = [
            resource.total(choices)
            for choices in explained.all
            if feasible(under_limits(problem, {limit.target: None}), choices)
            and problem.value(objective_of(problem, choices)) < objective * (1 - 1e-3) - 1e-12
        ]
        if limit.next_step is None:
            assert not better
        else:
            assert limit.next_step.limit == pytest.approx(min(better) * resource.resolution)
            assert limit.next_step.objective < objective


def test_limits_on_the_loss_are_stated_as_losses(random_case: MakeCase, paired: MakeCase) -> None:
    case = paired(random_case(3, nodes=8, layers=3), 3)
    asked = 0.2
    explained = Explained(case, Targets(loss=asked, objective="bytes"))
    losses = {
        choices: Predictor(case.network, case.loss).total_loss(explained.program.variants(choices))
        for choices in explained.all
    }
    sizes = {choices: objective_of(explained.problem, choices) for choices in explained.all}
    (limit,) = explained.found.limits
    assert limit.target == "loss"
    assert limit.limit == pytest.approx(asked, rel=1e-6)
    assert limit.used == pytest.approx(losses[explained.chosen], rel=1e-6)
    for share, gain in limit.gains.items():
        assert gain.limit == pytest.approx((1 + share) * asked, rel=1e-6)
        assert gain.objective == min(sizes[choices] for choices in explained.all if losses[choices] <= gain.limit)
    assert limit.next_step is not None
    smaller = [losses[choices] for choices in explained.all if sizes[choices] < sizes[explained.chosen] * (1 - 1e-3)]
    assert limit.next_step.limit == pytest.approx(min(smaller), rel=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_layers_say_what_their_runner_up_costs(random_case: MakeCase, seed: int) -> None:
    case = random_case(seed, nodes=8, layers=3)
    explained = Explained(case, limited(case, 0.2))
    for group, layer in enumerate(explained.found.layers):
        options = explained.problem.groups[group].options
        assert layer.variant == options[explained.chosen[group]]
        if len(options) == 1:
            assert layer.pinned == "only choice"
            continue
        rest = without_option(explained.problem, group, explained.chosen[group])
        best = explained.best(rest)
        if best is None:
            assert "breaks" in layer.pinned
            continue
        assert layer.objective == pytest.approx(best, abs=1e-9)
        assert layer.runner_up in options
        assert layer.runner_up != layer.variant
        assert layer.proven


def test_a_layer_that_only_one_limit_pins_says_which(random_case: MakeCase) -> None:
    case = random_case(2, nodes=8, layers=3)
    smallest = plan(case.network, case.loss, case.device, Targets(objective="bytes"), case.menu, threads=2, batch=3)
    explained = Explained(case, Targets(bytes=int(smallest.predicted["file_bytes"] or 0)))
    pinned = [layer.pinned for layer in explained.found.layers if layer.pinned not in ("", "only choice")]
    assert pinned
    assert set(pinned) == {"any other breaks the limit on bytes"}


@pytest.mark.parametrize(("seed", "pairs"), [(0, False), (1, False), (2, False), (0, True)])
def test_the_next_best_plans_are_those_of_enumeration(
    random_case: MakeCase, paired: MakeCase, seed: int, pairs: bool
) -> None:
    case = random_case(seed, nodes=8, layers=3)
    case = paired(case, seed) if pairs else case
    explained = Explained(case, limited(case, 0.4))
    problem = explained.problem
    ordered = sorted(objective_of(problem, choices) for choices in explained.all if feasible(problem, choices))
    losses = [explained.link(problem.value(objective)) for objective in ordered]
    found = explained.found.alternatives
    assert [other.objective for other in found] == pytest.approx(losses[1:5], abs=1e-9)
    seen: list[Choices] = [explained.chosen]
    for other in found:
        changed = {layer: b for layer, (_, b) in other.differences.items()}
        options = [
            group.options.index(changed.get(group.name, group.options[i]))
            for group, i in zip(problem.groups[: explained.layers], explained.chosen, strict=False)
        ]
        choices = next(c for c in explained.all if list(c[: explained.layers]) == options)
        assert choices not in seen
        assert feasible(problem, choices)
        stated = explained.link(problem.value(objective_of(problem, choices)))
        assert stated == pytest.approx(other.objective, abs=1e-9)
        seen.append(choices)


def test_what_is_ruled_out_and_nothing_else_is_infeasible(random_case: MakeCase) -> None:
    case = random_case(0, nodes=8, layers=3)
    program = build_problem(case.network, case.menu, Targets(objective="bytes"))
    every = [program.choices(dict(zip(case.menu, chosen, strict=True))) for chosen in product(*case.menu.values())]
    cut = without_choices(program.problem, every[3], len(case.menu))
    assert [choices for choices in every if not feasible(cut, choices)] == [every[3]]
    barred = without_option(program.problem, 0, every[3][0])
    assert all(feasible(barred, choices) == (choices[0] != every[3][0]) for choices in every)


def test_a_policy_outside_its_limits_is_refused(random_case: MakeCase) -> None:
    case = random_case(0, nodes=8, layers=3)
    policy = plan(case.network, case.loss, case.device, Targets(), case.menu, threads=2, batch=3)
    with pytest.raises(UsageError, match="breaks the limits"):
        explain_plan(case.network, policy, case.loss, case.device, Targets(bytes=10), case.menu, threads=2, batch=3)
