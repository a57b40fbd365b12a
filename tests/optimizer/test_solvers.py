"""Solvers against the oracle, and what holds of every answer."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitplan.optimizer.builder import ProblemBuilder
from bitplan.optimizer.check import WrongSolutionError, check, feasible, objective_of
from bitplan.optimizer.problem import Problem
from bitplan.optimizer.reduce import reduce
from bitplan.optimizer.solution import Solution, Status, from_parts
from bitplan.optimizer.solvers import BY_NAME, SOLVERS, solve
from bitplan.optimizer.solvers.flow import flow_model

MakeProblem = Callable[..., Problem]
ORACLE = BY_NAME["brute-force"]
SEEDS = range(300)


def oracle(problem: Problem) -> Solution:
    return ORACLE.solve(problem, time_limit=60)


@pytest.mark.parametrize("block", range(6))
@pytest.mark.parametrize("name", [solver.name for solver in SOLVERS if solver.proves and solver.name != "brute-force"])
def test_a_proving_solver_equals_brute_force(name: str, block: int, random_problem: MakeProblem) -> None:
    for seed in SEEDS[block::6]:
        problem = random_problem(seed)
        if not BY_NAME[name].fits(problem):
            continue
        truth, answer = oracle(problem), BY_NAME[name].solve(problem, time_limit=30, seed=seed)
        check(problem, answer)
        assert answer.status == truth.status, seed
        assert answer.objective == truth.objective, seed


def test_the_random_problems_are_of_all_kinds(random_problem: MakeProblem) -> None:
    problems = [random_problem(seed) for seed in SEEDS]
    answers = [oracle(problem) for problem in problems]
    assert sum(answer.status == Status.INFEASIBLE for answer in answers) >= 10
    assert sum(answer.status == Status.OPTIMAL for answer in answers) >= 60
    assert sum(bool(problem.forbidden) for problem in problems) >= 30
    assert sum(len(problem.objectives) > 1 for problem in problems) >= 20
    assert sum(bool(flow_model(problem).links) for problem in problems) >= 60


@settings(max_examples=80, deadline=None, derandomize=True)
@given(seed=st.integers(1000, 10**9))
def test_solve_equals_brute_force(seed: int, random_problem: MakeProblem) -> None:
    problem = random_problem(seed, groups=4)
    truth, answer = oracle(problem), solve(problem, time_limit=30)
    check(problem, answer)
    assert (answer.status, answer.objective) == (truth.status, truth.objective)


@pytest.mark.parametrize("seed", range(40))
def test_greedy_answers_are_feasible_and_never_below_the_optimum(seed: int, random_problem: MakeProblem) -> None:
    problem = random_problem(seed, tightness=(0.4, 0.9))
    answer, truth = BY_NAME["greedy"].solve(problem, time_limit=10, seed=seed), oracle(problem)
    check(problem, answer)
    assert answer.status in (Status.FEASIBLE, Status.UNKNOWN)
    if answer.objective is not None:
        assert truth.objective is not None and answer.objective >= truth.objective


def test_greedy_finds_a_solution_of_most_problems_that_have_one(random_problem: MakeProblem) -> None:
    problems = [random_problem(seed, tightness=(0.4, 0.9)) for seed in range(100)]
    solvable = [problem for problem in problems if oracle(problem).status == Status.OPTIMAL]
    solved = [p for p in solvable if BY_NAME["greedy"].solve(p, time_limit=10).choices is not None]
    assert len(solvable) >= 60
    assert len(solved) >= 0.9 * len(solvable)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**9), more=st.integers(0, 40))
def test_loosening_a_limit_never_worsens_the_optimum(seed: int, more: int, random_problem: MakeProblem) -> None:
    problem = random_problem(seed, groups=4, tightness=(0.2, 0.6))
    name = next(iter(problem.limits))
    looser = replace(
        problem,
        resources=tuple(
            replace(r, limit=r.limit + more) if r.target == name and r.limit is not None else r
            for r in problem.resources
        ),
    )
    before, after = solve(problem, time_limit=30), solve(looser, time_limit=30)
    if before.objective is not None:
        assert after.objective is not None and after.objective <= before.objective


@settings(max_examples=60, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**9))
def test_removing_dominated_options_keeps_the_optimum_and_starts(seed: int, random_problem: MakeProblem) -> None:
    problem = random_problem(seed, groups=4)
    reduced = reduce(problem)
    small, whole = oracle(reduced.problem), oracle(problem)
    assert (small.status, small.objective) == (whole.status, whole.objective)
    random = np.random.default_rng(seed)
    for _ in range(20):
        choices = tuple(int(random.integers(len(group.options))) for group in problem.groups)
        if feasible(problem, choices):
            translated = reduced.translate(choices)
            assert feasible(reduced.problem, translated)
            assert objective_of(reduced.problem, translated) <= objective_of(problem, choices)
            restored = reduced.restore(translated)
            assert objective_of(problem, restored) == objective_of(reduced.problem, translated)


def test_an_option_that_costs_more_of_everything_is_removed() -> None:
    builder = ProblemBuilder()
    builder.add_group("layer", ["good", "dear", "small"])
    builder.add_resource("loss", counted=True)
    builder.add_resource("bytes", counted=True, limit=9)
    builder.add_linear("loss", 0, [3, 4, 9])
    builder.add_linear("bytes", 0, [8, 10, 2])
    reduced = reduce(builder.build("loss"))
    assert reduced.problem.groups[0].options == ("good", "small")
    assert reduced.translate((1,)) == (0,)


def test_an_option_that_only_seems_dominated_stays_for_its_pair_term() -> None:
    builder = ProblemBuilder()
    for name in ("a", "b"):
        builder.add_group(name, ["x", "y"])
    builder.add_resource("loss", counted=True)
    builder.add_linear("loss", 0, [3, 4])
    builder.add_pair("loss", 1, 0, [[0, 0], [9, 0]])
    builder.add_linear("loss", 1, [5, 0])
    problem = builder.build("loss")
    assert "y" in reduce(problem).problem.groups[0].options
    assert solve(problem).choices == (1, 1)


def chain(layers: int, variants: int, formats: int, seed: int) -> Problem:
    """Layers in a row with bytes, latency and conversions between neighbours whose formats differ."""
    random = np.random.default_rng(seed)
    builder = ProblemBuilder()
    bits = np.linspace(8, 1, variants)
    for layer in range(layers):
        builder.add_group(f"layer {layer}", [f"v{v}" for v in range(variants)])
    size, sensitivity = random.lognormal(9, 1.2, layers), random.lognormal(-4, 1.5, layers)
    loss = sensitivity[:, None] * 300 * 4.0**-bits * random.lognormal(0, 0.3, (layers, variants))
    latency = size[:, None] ** 0.7 * 1e-7 * (0.5 + bits / 16) * random.lognormal(0, 0.25, (layers, variants))
    file_bytes = np.round(size[:, None] * bits / 8) + 40
    form = random.integers(0, formats, (layers, variants))
    builder.add_resource("loss")
    builder.add_resource("bytes", counted=True, limit=float(round(file_bytes[:, 0].sum() * 0.4)))
    builder.add_resource("latency", limit=float(latency.min(1).sum() * 1.25))
    for layer in range(layers):
        builder.add_linear("loss", layer, loss[layer])
        builder.add_linear("bytes", layer, file_bytes[layer])
        builder.add_linear("latency", layer, latency[layer])
        if layer and formats > 1:
            conversion = random.uniform(0.1, 0.5, (formats, formats)) * latency[layer].mean()
            np.fill_diagonal(conversion, 0)
            builder.add_pair("latency", layer - 1, layer, conversion[form[layer - 1]][:, form[layer]])
    return builder.build("loss")


@pytest.mark.parametrize(("layers", "formats", "seconds"), [(60, 1, 15), (60, 2, 15)])
def test_sixty_layers_are_proven_in_seconds(layers: int, formats: int, seconds: float) -> None:
    problem = chain(layers, 12, formats, seed=1)
    answer = solve(problem, time_limit=seconds)
    assert answer.gap is not None and answer.gap <= 1e-3


def test_the_two_exact_solvers_agree_on_a_chain_with_conversions() -> None:
    problem = chain(40, 8, 3, seed=2)
    first, second = (BY_NAME[name].solve(problem, time_limit=30) for name in ("cp-sat", "highs"))
    assert first.status == Status.OPTIMAL
    assert second.objective is not None and first.objective is not None and second.bound is not None
    assert second.bound <= first.objective <= second.objective
    assert second.objective - second.bound <= 1e-6 * second.objective


@pytest.mark.parametrize("seed", [0, 7])
def test_the_same_seed_gives_the_same_answer(seed: int) -> None:
    problem = chain(30, 8, 2, seed=3)
    first, second = (solve(problem, time_limit=30, seed=seed) for _ in range(2))
    assert replace(first, seconds=0.0) == replace(second, seconds=0.0)


def test_a_start_is_never_lost_and_a_timed_out_answer_is_not_called_optimal() -> None:
    problem = chain(60, 12, 4, seed=4)
    best = solve(problem, time_limit=30)
    assert best.choices is not None
    begin = time.perf_counter()
    hurried = solve(problem, time_limit=0.02, starts=[best.choices])
    assert time.perf_counter() - begin < 5
    assert hurried.objective == best.objective
    check(problem, hurried)
    if hurried.status == Status.OPTIMAL:
        assert hurried.bound == best.objective


def test_a_stopped_solver_says_feasible(random_problem: MakeProblem) -> None:
    problem = random_problem(3, groups=5)
    answer = ORACLE.solve(problem, time_limit=-1)
    assert answer.status in (Status.FEASIBLE, Status.UNKNOWN)


def test_the_largest_of_several_resources_is_minimised() -> None:
    builder = ProblemBuilder()
    builder.add_group("a", ["left", "right", "middle"])
    for name, costs in (("at 1", [9, 1, 6]), ("at 2", [1, 9, 5])):
        builder.add_resource(name, target="memory", counted=True)
        builder.add_linear(name, 0, costs)
    problem = builder.build("memory")
    for solver in ("cp-sat", "highs", "greedy", "brute-force"):
        answer = BY_NAME[solver].solve(problem, time_limit=10)
        assert (answer.choices, answer.objective) == ((2,), 6), solver


def test_pair_costs_with_one_sided_parts_need_no_flow() -> None:
    builder = ProblemBuilder()
    for name in ("a", "b"):
        builder.add_group(name, ["x", "y", "z"])
    builder.add_resource("loss", counted=True)
    builder.add_pair("loss", 0, 1, np.add.outer([1, 5, 2], [4, 0, 7]))
    flows = flow_model(builder.build("loss"))
    assert flows.links == ()
    answer = solve(builder.build("loss"))
    assert (answer.choices, answer.objective) == ((0, 1), 1)


def test_options_that_a_link_cannot_tell_apart_share_their_flow() -> None:
    builder = ProblemBuilder()
    for name in ("a", "b"):
        builder.add_group(name, [f"v{v}" for v in range(12)])
    builder.add_resource("latency", counted=True)
    form = np.arange(12) % 2
    builder.add_pair("latency", 0, 1, np.where(form[:, None] != form[None, :], 7, 0))
    assert flow_model(builder.build("latency")).flows == 4


def test_forbidden_pairs_alone_can_make_a_problem_infeasible() -> None:
    builder = ProblemBuilder()
    for name in ("a", "b"):
        builder.add_group(name, ["x", "y"])
    builder.add_resource("loss", counted=True)
    builder.forbid(0, 1, np.ones((2, 2), bool))
    problem = builder.build("loss")
    for solver in ("cp-sat", "highs", "brute-force"):
        assert BY_NAME[solver].solve(problem, time_limit=10).status == Status.INFEASIBLE
    assert BY_NAME["greedy"].solve(problem, time_limit=10).status == Status.UNKNOWN
    assert solve(problem).status == Status.INFEASIBLE


def test_a_bound_above_the_objective_is_refused_and_never_becomes_a_proof() -> None:
    problem = chain(6, 4, 2, 0)
    answer = solve(problem, time_limit=30)
    assert answer.choices is not None and answer.objective is not None
    rounded = from_parts(answer.choices, answer.objective, answer.objective + 1, 0.0, "test")
    assert answer.objective > 1e9
    assert rounded.status == Status.OPTIMAL and rounded.bound == answer.objective
    wrong = from_parts(answer.choices, answer.objective, answer.objective + answer.objective // 1000, 0.0, "test")
    assert wrong.status == Status.FEASIBLE
    with pytest.raises(WrongSolutionError, match="lies above its own objective"):
        check(problem, wrong)
