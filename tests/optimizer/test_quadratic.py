"""Quadratic programs: bounds and incumbents against brute force, and what holds of larger ones."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from bitplan.optimizer.check import check, feasible, objective_of
from bitplan.optimizer.problem import Problem
from bitplan.optimizer.problem_file import read_problem
from bitplan.optimizer.quadratic.annealing import Annealing
from bitplan.optimizer.quadratic.branching import FEWEST_STEPS, Branching
from bitplan.optimizer.quadratic.chains import Chains
from bitplan.optimizer.quadratic.limits import LinearLimits
from bitplan.optimizer.quadratic.matrices import matrices
from bitplan.optimizer.quadratic.relaxation import Relaxation
from bitplan.optimizer.solution import Status
from bitplan.optimizer.solvers import BY_NAME, SOLVERS, solve
from bitplan.optimizer.under_limits import under_limits

MakeProblem = Callable[..., Problem]
ORACLE = BY_NAME["brute-force"]
INSTANCES = Path(__file__).parents[2] / "benchmarks" / "instances"
KINDS = [
    {"rank": 3},
    {"rank": None},
    {"rank": 2, "forbidden": 0.12},
    {"rank": None, "forbidden": 0.12, "limits": 3},
]


def never() -> bool:
    return False


@pytest.mark.parametrize("kind", KINDS)
def test_it_equals_brute_force_on_dense_problems(kind: dict[str, float], dense_problem: MakeProblem) -> None:
    seen = set()
    for seed in range(50):
        problem = dense_problem(seed, **kind)
        truth = ORACLE.solve(problem, time_limit=60)
        answer = BY_NAME["quadratic"].solve(problem, time_limit=30, seed=seed)
        check(problem, answer)
        assert (answer.status, answer.objective) == (truth.status, truth.objective), seed
        seen.add(answer.status)
    assert Status.OPTIMAL in seen


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("steps", [0, 5, 60])
def test_bounds_hold_with_and_without_forced_options(
    kind: dict[str, float], steps: int, dense_problem: MakeProblem
) -> None:
    for seed in range(8):
        problem = dense_problem(seed, groups=4, **kind)
        program = matrices(problem)
        limits = LinearLimits(program)
        kept = limits.possible(np.arange(int(program.offsets[-1])))
        truth = {
            tuple((np.array(choices) + program.offsets[:-1]).tolist()): objective_of(problem, choices)
            for choices in product(*(range(len(group.options)) for group in problem.groups))
            if feasible(problem, choices)
        }
        for chosen in truth:
            assert set(chosen) <= set(kept.tolist()), "a possible option was left out"
        if not truth:
            continue
        relaxation = Relaxation(program, limits, kept, program.allowed)
        iterate = relaxation.start()
        if not relaxation.allowed.any((1, 2)).all():
            continue
        relaxation.improve(iterate, steps, 0.1, never)
        bounds = relaxation.bounds(iterate)
        assert bounds.whole <= min(truth.values())
        place = dict(zip(kept.tolist(), relaxation.slot.tolist(), strict=True))
        for chosen, objective in truth.items():
            slots = [place[option] for option in chosen]
            assert bounds.options[slots].max() <= objective
            pairs = bounds.pairs[np.ix_(slots, slots)][~np.eye(len(slots), dtype=bool)]
            assert pairs.max() <= objective


def test_any_multiplier_and_prices_give_a_valid_bound(dense_problem: MakeProblem) -> None:
    random = np.random.default_rng(0)
    for seed in range(20):
        problem = dense_problem(seed, groups=4)
        program = matrices(problem)
        limits = LinearLimits(program)
        truth = ORACLE.solve(problem, time_limit=60).objective
        if truth is None:
            continue
        relaxation = Relaxation(program, limits, limits.possible(np.arange(program.offsets[-1])), program.allowed)
        noise = random.normal(size=(relaxation.rows, relaxation.rows))
        iterate = relaxation.start()
        iterate.multiplier = (noise + noise.T) * 10 ** random.uniform(-4, 2)
        iterate.prices = random.random(len(iterate.prices)) * relaxation.scale
        assert relaxation.bounds(iterate).whole <= truth


def test_the_relaxation_is_tight_where_the_objective_has_no_pair_costs_between_groups(
    dense_problem: MakeProblem,
) -> None:
    problem = dense_problem(0, limits=0)
    loss = problem.resources[0]
    problem = replace(problem, resources=(replace(loss, pairs={}),))
    program = matrices(problem)
    relaxation = Relaxation(program, LinearLimits(program), np.arange(program.offsets[-1]), program.allowed)
    iterate = relaxation.start()
    relaxation.improve(iterate, 400, 0.1, never)
    smallest = sum(int(table.min()) for table in loss.linear)
    assert relaxation.bounds(iterate).whole == pytest.approx(smallest, rel=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_chains_keep_exact_totals(kind: dict[str, float], dense_problem: MakeProblem) -> None:
    problem = dense_problem(3, groups=7, **kind)
    program = matrices(problem)
    random = np.random.default_rng(1)
    first = np.stack([random.integers(program.offsets[:-1], program.offsets[1:]) for _ in range(8)])
    chains = Chains(program, first, random)
    for _ in range(10):
        chains.sweep(chains.objective.sums.std() + 1, 1.0)
    for number, row in enumerate(chains.choices - program.offsets[:-1]):
        choices = tuple(row.tolist())
        assert chains.objective.sums[number] == objective_of(problem, choices)
        assert chains.feasible[number] == feasible(problem, choices)


def test_annealing_finds_the_optimum_of_most_small_problems(dense_problem: MakeProblem) -> None:
    right, solvable = 0, 0
    for seed in range(20):
        problem = dense_problem(seed, rank=None, limits=1)
        truth = ORACLE.solve(problem, time_limit=60)
        if truth.objective is None:
            continue
        annealing = Annealing(matrices(problem), [], seed, never)
        annealing.run(2, 4)
        solvable += 1
        right += annealing.best is not None and objective_of(problem, annealing.best) == truth.objective
    assert solvable >= 15
    assert right >= 0.9 * solvable


def test_no_bound_lies_above_any_incumbent(dense_problem: MakeProblem) -> None:
    for seed in range(4):
        problem = dense_problem(seed, groups=9, limits=1)
        answers = [solver.solve(problem, time_limit=2, seed=seed) for solver in SOLVERS if solver.name != "brute-force"]
        for answer in answers:
            check(problem, answer)
        bounds = [answer.bound for answer in answers if answer.bound is not None]
        objectives = [answer.objective for answer in answers if answer.objective is not None]
        assert len(bounds) >= 2
        assert len(objectives) >= 4
        assert max(bounds) <= min(objectives)


def test_resnet_20_is_proven_and_the_answer_is_the_same_again() -> None:
    problem = read_problem(INSTANCES / "resnet20-2.0bits.arrow")
    first, second = (solve(problem, time_limit=60, seed=1) for _ in range(2))
    assert first.status == Status.OPTIMAL
    assert problem.value(first.objective or 0) == pytest.approx(3.78773, abs=1e-5)
    assert replace(first, seconds=0.0) == replace(second, seconds=0.0)


def test_the_time_limit_is_kept_and_baselines_are_not_better(monkeypatch: pytest.MonkeyPatch) -> None:
    # on a busy machine little of the time that passes is this process's, so all clocks count its processor seconds
    monkeypatch.setattr(time, "perf_counter", time.process_time)
    problem = read_problem(INSTANCES / "resnet44-2.0bits.arrow")
    begin = time.process_time()
    answer = solve(problem, time_limit=4, seed=0)
    assert 3 < time.process_time() - begin < 7
    check(problem, answer)
    assert answer.bound is not None and answer.objective is not None
    for name in ("greedy", "separable"):
        other = BY_NAME[name].solve(problem, time_limit=1)
        assert other.objective is None or answer.objective <= other.objective


def test_a_single_group_and_a_single_choice(dense_problem: MakeProblem) -> None:
    for groups, options in ((1, 4), (1, 2), (2, 2)):
        problem = dense_problem(1, groups=groups, options=options, limits=0)
        truth, answer = ORACLE.solve(problem, time_limit=9), BY_NAME["quadratic"].solve(problem, time_limit=9)
        assert (answer.status, answer.objective) == (truth.status, truth.objective)


def test_several_resources_in_the_objective_are_left_to_others(random_problem: MakeProblem) -> None:
    problem = next(p for p in map(random_problem, range(100)) if len(p.objectives) > 1)
    assert not BY_NAME["quadratic"].fits(problem)
    answer = BY_NAME["quadratic"].solve(problem, time_limit=5)
    assert (answer.status, answer.bound) == (Status.UNKNOWN, None)
    with pytest.raises(ValueError, match="has 2 resources, not one"):
        matrices(problem)


def test_programs_too_large_for_the_relaxation_have_a_bound_too(
    dense_problem: MakeProblem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bitplan.optimizer.solvers.quadratic.MOST_OPTIONS", 0)
    problem = dense_problem(2, groups=8, options=6, limits=1)
    answer = solve(problem, time_limit=5)
    assert "quadratic" not in answer.solver
    assert answer.choices is not None and answer.objective is not None
    assert answer.bound is not None and answer.bound <= answer.objective


@pytest.mark.parametrize("kind", KINDS[:3])
def test_programs_of_many_options_are_bounded_after_few_steps_and_still_solved(
    kind: dict[str, float], dense_problem: MakeProblem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bitplan.optimizer.quadratic.branching.MANY", 1)
    compared, better = 0, 0
    for seed in range(12):
        problem = dense_problem(seed, **kind)
        truth = ORACLE.solve(problem, time_limit=60)
        branching = Branching(matrices(problem), partial(objective_of, problem), never)
        if truth.objective is None:
            continue
        assert branching.steps == FEWEST_STEPS
        branching.warm_up(1)
        if np.isfinite(branching.bound):
            compared += 1
            better += branching.bound > problem.objectives[0].smallest
            assert branching.bound <= truth.objective
        answer = BY_NAME["quadratic"].solve(problem, time_limit=30, seed=seed)
        assert (answer.status, answer.objective) == (truth.status, truth.objective)
    assert compared >= 4
    assert better >= compared / 2


def test_the_start_is_close_where_the_objective_is_a_sum_of_squares(dense_problem: MakeProblem) -> None:
    for seed in range(6):
        program = matrices(dense_problem(seed, rank=3, limits=0, groups=7))
        relaxation = Relaxation(program, LinearLimits(program), np.arange(program.offsets[-1]), program.allowed)
        iterate = relaxation.start()
        started = relaxation.bounds(iterate).whole
        iterate.multiplier = np.zeros_like(iterate.multiplier)
        assert started > relaxation.bounds(iterate).whole


def test_a_time_limit_that_has_passed_leaves_the_root_as_it_is(dense_problem: MakeProblem) -> None:
    problem = dense_problem(0, limits=0)
    branching = Branching(matrices(problem), partial(objective_of, problem), lambda: True)
    root = branching.root
    branching.warm_up(6)
    branching.offer((0,) * len(problem.groups))
    branching.run(lambda: None)
    assert branching.root is root and branching.bound == -np.inf
    assert branching.choices is not None and not branching.finished


def test_a_budget_below_the_smallest_policy_is_infeasible_at_once() -> None:
    problem = read_problem(INSTANCES / "resnet44-10variants-2.0bits.arrow")
    size = next(resource for resource in problem.resources if resource.target == "bytes")
    begin = time.process_time()
    answer = solve(under_limits(problem, {"bytes": size.smallest - 1}), time_limit=60)
    assert answer.status == Status.INFEASIBLE
    assert time.process_time() - begin < 20


def test_a_limit_with_pair_costs_between_all_groups_is_left_to_it_too(dense_problem: MakeProblem) -> None:
    """The fewest bytes within a loss."""
    problem = dense_problem(4, groups=14, options=5, limits=1)
    loss, size = problem.resources
    least = solve(problem, time_limit=3).objective
    assert least is not None
    allowed = replace(loss, limit=least + abs(least) // 2)
    turned = replace(problem, resources=(allowed, replace(size, limit=None)), objective="r0")
    answer = solve(turned, time_limit=6)
    check(turned, answer)
    assert "quadratic" in answer.solver
    other = BY_NAME["cp-sat"].solve(turned, time_limit=3)
    assert answer.objective is not None and answer.bound is not None
    assert other.objective is None or other.objective >= answer.objective
    assert other.bound is None or other.bound <= answer.bound
