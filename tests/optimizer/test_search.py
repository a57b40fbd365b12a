"""Moves of the local search keep totals right and leave no forbidden pair behind."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bitplan.optimizer.check import feasible, objective_of
from bitplan.optimizer.problem import Choices, Problem
from bitplan.optimizer.search import Search
from bitplan.optimizer.solvers import BY_NAME


def starts(random_problem: Callable[..., Problem]) -> list[tuple[int, Problem, Choices]]:
    """Problems that have a solution, with one."""
    found = []
    for seed in range(30):
        problem = random_problem(seed, groups=6, tightness=(1.0, 1.0))
        start = BY_NAME["cp-sat"].solve(problem, time_limit=10).choices
        if start is not None:
            found.append((seed, problem, start))
    assert len(found) >= 20
    return found


def test_a_move_mends_the_clashes_it_causes_and_knows_its_totals(random_problem: Callable[..., Problem]) -> None:
    for seed, problem, start in starts(random_problem):
        random = np.random.default_rng(seed)
        search = Search(problem, start)
        for _ in range(30):
            group = int(random.integers(len(problem.groups)))
            moves = list(search.moves(group))
            if not moves:
                continue
            move = moves[int(random.integers(len(moves)))]
            before = search.choices[group]
            search.apply(move)
            assert search.choices[group] != before
            choices = tuple(search.choices)
            assert search.totals.tolist() == [resource.total(choices) for resource in problem.active]
            assert search.objective(search.totals) == objective_of(problem, choices)
            assert not any(mask[choices[a], choices[b]] for (a, b), mask in problem.forbidden.items())
            assert search.clashes() == 0
            assert (search.excess(search.totals) == 0) == feasible(problem, choices)


def test_some_moves_change_neighbours_too(random_problem: Callable[..., Problem]) -> None:
    longest = 0
    for _, problem, start in starts(random_problem):
        search = Search(problem, start)
        moves = [move for group in range(len(start)) for move in search.moves(group)]
        longest = max([longest, *(len(move.changes) for move in moves)])
    assert longest >= 3
