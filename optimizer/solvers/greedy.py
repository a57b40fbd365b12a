"""The baseline: start from what is cheapest, then buy the best ratio of gain to share of the limits used."""

from __future__ import annotations

import heapq
import time
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from bitplan.optimizer.check import feasible, objective_of
from bitplan.optimizer.problem import Choices, Problem
from bitplan.optimizer.search import Move, Search
from bitplan.optimizer.solution import Solution, from_parts
from bitplan.optimizer.solvers.base import Solver

MOST_REPAIRS = 20
"""Steps per group that are spent on undoing forbidden pairs of the start."""


class Greedy(Solver):
    name: ClassVar[str] = "greedy"
    proves: ClassVar[bool] = False
    uses_starts: ClassVar[bool] = False

    def solve(self, problem: Problem, *, time_limit: float, seed: int = 0, starts: Sequence[Choices] = ()) -> Solution:
        begin = time.perf_counter()
        search = Search(problem, cheapest(problem))
        _undo_clashes(search, np.random.default_rng(seed))
        if not search.clashes():
            _reduce_excess(search, begin + time_limit)
            upgrade(search, begin + time_limit)
        choices = tuple(search.choices)
        seconds = time.perf_counter() - begin
        if not feasible(problem, choices):
            return from_parts(None, None, None, seconds, self.name)
        return from_parts(choices, objective_of(problem, choices), None, seconds, self.name)


def cheapest(problem: Problem) -> Choices:
    """Group by group the option that clashes least with the groups before it and uses the least share of the limits."""
    search = Search(problem, tuple(0 for _ in problem.groups))
    tables = search.tables
    for group in range(len(problem.groups)):
        price = search.prices @ tables.linear[group]
        clashes = np.zeros(len(price), np.int64)
        for link in tables.links[group]:
            if link.other < group:
                chosen = search.choices[link.other]
                clashes += ~link.allowed[:, chosen]
                for number, table in link.costs:
                    price = price + search.prices[number] * table[:, chosen]
        search.choices[group] = min(range(len(price)), key=lambda i: (int(clashes[i]), float(price[i]), i))
    return tuple(search.choices)


def _undo_clashes(search: Search, random: np.random.Generator) -> None:
    """Min-conflicts: gives a clashing group the option with the fewest clashes, ties broken at random."""
    groups = range(len(search.choices))
    for _ in range(MOST_REPAIRS * len(search.choices)):
        clashing = [g for g in groups if search.tables.clashes(search.choices, g)[search.choices[g]]]
        if not clashing:
            break
        group = int(random.choice(clashing))
        clashes = search.tables.clashes(search.choices, group)
        search.choices[group] = int(random.choice(np.flatnonzero(clashes == clashes.min())))
    search.totals = search.tables.totals(search.choices)


def _reduce_excess(search: Search, deadline: float) -> None:
    """Coordinate descent on the excess over the limits, until nothing is exceeded or no single move helps."""
    improved = True
    while improved and search.excess(search.totals) > 0 and time.perf_counter() < deadline:
        improved = False
        for group in range(len(search.choices)):
            excess = search.excess(search.totals)
            best = min(search.moves(group), key=lambda move: search.excess(move.totals), default=None)
            if best is not None and search.excess(best.totals) < excess:
                search.apply(best)
                improved = True


def upgrade(search: Search, deadline: float) -> None:
    """Applies, as long as there is one, the move with the best ratio of gain to share of the room used.

    A heap holds each group's best move; a ratio is recomputed when it comes up, since other moves may have changed it.
    """
    if search.excess(search.totals) > 0:
        return
    limits = search.tables.limits
    room = np.where(np.isfinite(limits), np.maximum(limits - search.totals, 1.0), np.inf)

    def best_move(group: int) -> tuple[float, Move] | None:
        objective = search.objective(search.totals)
        best: tuple[float, Move] | None = None
        for move in search.moves(group):
            gain = objective - search.objective(move.totals)
            if gain <= 0 or np.any(move.totals > limits):
                continue
            used = float((np.maximum(move.totals - search.totals, 0) / room).sum())
            ratio = gain / (used + 1e-9)
            if best is None or ratio > best[0]:
                best = (ratio, move)
        return best

    waiting = list(range(len(search.choices)))
    heap: list[tuple[float, int]] = []
    while time.perf_counter() < deadline:
        for group in waiting:
            if found := best_move(group):
                heapq.heappush(heap, (-found[0], group))
        if not heap:
            return
        _, group = heapq.heappop(heap)
        waiting = []
        if not (found := best_move(group)):
            continue
        if heap and found[0] < -heap[0][0]:
            heapq.heappush(heap, (-found[0], group))
            continue
        search.apply(found[1])
        waiting = list(found[1].changes)
