"""Explanations of infeasible limits are true: the conflict is one, is minimal, and what is said to be reachable is."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from dataclasses import replace
from itertools import product
from typing import Any

import pytest

from bitplan.errors import InfeasibleError
from bitplan.optimizer.builder import ProblemBuilder
from bitplan.optimizer.infeasible import Explanation, explain
from bitplan.optimizer.plan import plan
from bitplan.optimizer.predict import Predictor
from bitplan.optimizer.problem import Problem
from bitplan.optimizer.solution import Status
from bitplan.optimizer.solvers import BY_NAME
from bitplan.targets import Targets

MakeCase = Callable[..., Any]
MakeProblem = Callable[..., Problem]


def relaxed(problem: Problem, held: Collection[str], objective: str) -> Problem:
    resources = tuple(replace(r, limit=r.limit if r.target in held else None) for r in problem.resources)
    return replace(problem, resources=resources, objective=objective)


def smallest(problem: Problem, held: Collection[str], objective: str) -> int | None:
    return BY_NAME["brute-force"].solve(relaxed(problem, held, objective), time_limit=60).objective


def possible(problem: Problem, held: Collection[str]) -> bool:
    return smallest(problem, held, problem.objective) is not None


def test_explanations_of_random_problems_are_true(random_problem: MakeProblem) -> None:
    sizes = []
    for seed in range(150):
        problem = random_problem(seed, groups=4, resources=3, tightness=(0.05, 0.35))
        if BY_NAME["brute-force"].solve(problem, time_limit=60).status != Status.INFEASIBLE or not possible(
            problem, []
        ):
            continue
        explanation = explain(problem, time_limit=30)
        sizes.append(len(explanation.conflict))
        assert explanation.minimal
        assert not possible(problem, explanation.conflict)
        for target in explanation.conflict:
            assert possible(problem, [other for other in explanation.conflict if other != target])
        for target, reach in explanation.reach.items():
            others = [other for other in problem.limits if other != target]
            assert reach.held_proven and reach.alone_proven
            assert reach.held == smallest(problem, others, target)
            assert reach.alone == smallest(problem, [], target)
    assert len(sizes) >= 20
    assert set(sizes) >= {1, 2}


def two_limits(bytes_limit: int, latency: float) -> Problem:
    """Small is slow: 100 bytes take 4 ms, 400 bytes take 1 ms."""
    builder = ProblemBuilder()
    builder.add_group("conv", ["binary", "int8"])
    builder.add_resource("bytes", unit="B", counted=True, limit=bytes_limit)
    builder.add_linear("bytes", 0, [100, 400])
    builder.add_resource("latency", unit="s", limit=latency)
    builder.add_linear("latency", 0, [4e-3, 1e-3])
    builder.add_resource("loss", limit=5.0)
    builder.add_linear("loss", 0, [1.0, 0.0])
    return builder.build("loss")


def explained(problem: Problem) -> Explanation:
    return explain(problem, time_limit=30)


def test_a_conflict_of_two_names_both_and_leaves_out_the_third() -> None:
    explanation = explained(two_limits(200, 2e-3))
    assert explanation.conflict == ("bytes", "latency")
    text = explanation.text()
    assert "no policy of this menu meets all of: file size at most 200 bytes; latency at most 2 ms" in text
    assert "file size: 200 bytes asked, at least 400 bytes needed" in text
    assert "latency: 2 ms asked, at least 4 ms needed with the other limits held" in text
    assert "predicted loss: 5 asked; the other limits cannot be met themselves; without them 0 can be reached" in text
    assert "Raise one of these limits" in text


def test_a_limit_that_nothing_can_meet_stands_alone() -> None:
    explanation = explained(two_limits(50, 5e-3))
    assert explanation.conflict == ("bytes",)
    assert "no policy of this menu has file size at most 50 bytes" in explanation.text()
    assert explanation.reach["bytes"].held == 100


def test_limits_that_can_be_met_are_no_conflict() -> None:
    explanation = explained(two_limits(200, 5e-3))
    assert explanation.conflict == ()
    assert "no conflict" in explanation.text()


@pytest.mark.parametrize(("latency", "words"), [(0.9999949e-3, "at least 1 ms"), (1e-9, "at least 1 ms")])
def test_amounts_needed_are_rounded_up(latency: float, words: str) -> None:
    assert words in explained(two_limits(1000, latency)).text()


def test_amounts_are_written_as_people_would() -> None:
    builder = ProblemBuilder()
    builder.add_group("conv", ["int8"])
    for name, limit, cost in (("bytes", 1.0, 12_345.0), ("memory", 999.0, 1e6)):
        builder.add_resource(name, counted=True, limit=limit)
        builder.add_linear(name, 0, [cost])
    builder.add_resource("loss", limit=0.0)
    builder.add_linear("loss", 0, [0.125])
    text = explained(builder.build("loss")).text()
    assert (
        "file size: 1 byte asked; the other limits cannot be met themselves; without them 12,345 bytes (12.3 kB)"
        in text
    )
    assert "memory: 999 bytes asked" in text and "1,000,000 bytes (1 MB) can be reached" in text
    assert "predicted loss: 0 asked" in text and "without them 0.125 can be reached" in text


def test_an_explanation_as_data_names_conflict_and_reach_in_bytes_milliseconds_and_loss() -> None:
    plain = explained(two_limits(200, 2e-3)).to_json()
    assert json.loads(json.dumps(plain)) == {
        "conflict": ["bytes", "latency"],
        "limits": {
            "bytes": {"asked": 200, "smallest": 400},
            "latency": {"asked": 2.0, "smallest": pytest.approx(4.0)},
            "loss": {"asked": 5.0, "smallest": 0.0},
        },
    }
    met = explained(two_limits(200, 5e-3)).to_json()
    assert met["conflict"] == [] and met["limits"]["bytes"] == {"asked": 200, "smallest": 100}


def test_limits_on_the_loss_are_stated_as_losses(random_case: MakeCase, paired: MakeCase) -> None:
    case = paired(random_case(3, nodes=8, layers=3), 3)
    predictor = Predictor(case.network, case.loss)
    policies = [dict(zip(case.menu, chosen, strict=True)) for chosen in product(*case.menu.values())]
    least = sorted({predictor.totals(variants)["file_bytes"] for variants in policies})[1]
    within = [v for v in policies if predictor.totals(v)["file_bytes"] <= least]
    needed = min(predictor.total_loss(variants) for variants in within)
    assert needed > 2e-3
    with pytest.raises(InfeasibleError) as caught:
        plan(case.network, case.loss, None, Targets(bytes=least, loss=1e-3), case.menu, time_limit=20)
    assert "predicted loss: 0.001 asked" in str(caught.value)
    stated = caught.value.details["limits"]["loss"]
    assert stated == pytest.approx({"asked": 1e-3, "smallest": needed}, rel=1e-6)
