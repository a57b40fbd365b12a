"""Quadratic programs: annealing for incumbents beside the doubly nonnegative relaxation for bounds, on two threads."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from math import ceil, inf, isfinite
from threading import Event
from typing import ClassVar

from bitplan.optimizer.check import feasible, objective_of
from bitplan.optimizer.problem import Choices, Problem
from bitplan.optimizer.quadratic.annealing import Annealing
from bitplan.optimizer.quadratic.branching import MARGIN, Branching
from bitplan.optimizer.quadratic.matrices import matrices
from bitplan.optimizer.solution import Solution, Status, from_parts
from bitplan.optimizer.solvers.base import Solver
from bitplan.optimizer.solvers.interrupt import interruptible

MOST_OPTIONS = 4000
"""Options of all groups beyond which one step of the relaxation takes too long."""
PATIENCE, MOST_ROUNDS = 3, 12
"""Rounds of annealing: in a row without gain, and in all, before the relaxation is known and after."""
SMALL = 60
"""Options of all groups up to which one round will do."""
WARM_UP = 6
"""Bounds of the first relaxation that are computed beside each of the two."""


class Anneal(Solver):
    """Annealing alone."""

    name: ClassVar[str] = "annealing"
    proves: ClassVar[bool] = False
    uses_starts: ClassVar[bool] = True

    def fits(self, problem: Problem) -> bool:
        return len(problem.objectives) == 1

    def solve(self, problem: Problem, *, time_limit: float, seed: int = 0, starts: Sequence[Choices] = ()) -> Solution:
        """Knows nothing of problems whose objective is the largest of several resources."""
        begin = time.perf_counter()
        best: Choices | None = None
        if self.fits(problem):
            stop = _Stop(begin + time_limit)
            annealing = Annealing(matrices(problem), starts, seed, stop)
            interruptible(lambda: annealing.run(PATIENCE, MOST_ROUNDS), stop.set)
            best = annealing.best
        objective = None if best is None else objective_of(problem, best)
        return from_parts(best, objective, None, time.perf_counter() - begin, self.name)


class Quadratic(Solver):
    """Annealing, and branch and bound over the doubly nonnegative relaxation."""

    name: ClassVar[str] = "quadratic"
    proves: ClassVar[bool] = True
    uses_starts: ClassVar[bool] = True

    def fits(self, problem: Problem) -> bool:
        return len(problem.objectives) == 1 and sum(len(group.options) for group in problem.groups) <= MOST_OPTIONS

    def solve(self, problem: Problem, *, time_limit: float, seed: int = 0, starts: Sequence[Choices] = ()) -> Solution:
        """Has no bound of problems whose objective is the largest of several resources."""
        begin = time.perf_counter()
        if len(problem.objectives) > 1:
            return from_parts(None, None, None, 0.0, self.name)
        stop = _Stop(begin + time_limit)
        branching = Branching(matrices(problem), _evaluation(problem), stop)
        interruptible(lambda: _run(branching, starts, seed, stop), stop.set)
        seconds = time.perf_counter() - begin
        if branching.root is None and branching.choices is None:
            return Solution(Status.INFEASIBLE, seconds=seconds, solver=self.name)
        objective = None if branching.choices is None else int(branching.best)
        bound = ceil(branching.bound - MARGIN) if isfinite(branching.bound) else None
        if branching.finished:
            bound = objective
        return from_parts(branching.choices, objective, bound, seconds, self.name)


class _Stop:
    """Says whether to stop: at the deadline, or once set."""

    def __init__(self, deadline: float) -> None:
        self.deadline, self.event = deadline, Event()

    def __call__(self) -> bool:
        return self.event.is_set() or time.perf_counter() >= self.deadline

    def set(self) -> None:
        self.event.set()


def _evaluation(problem: Problem) -> Callable[[Choices], float]:
    return lambda choices: objective_of(problem, choices) if feasible(problem, choices) else inf


def _run(branching: Branching, starts: Sequence[Choices], seed: int, stop: _Stop) -> None:
    for start in starts:
        branching.offer(start)
    known = list(starts)
    # first what annealing alone would find, so that it is never missed for the sake of a start; then from all known
    annealing = Annealing(branching.program, (), seed, stop)

    def take() -> None:
        if annealing.best is not None:
            branching.offer(annealing.best)

    def again() -> None:
        annealing.round(branching.shares, branching.choices)
        take()

    most = MOST_ROUNDS if branching.program.offsets[-1] > SMALL else 1
    with ThreadPoolExecutor(1) as pool:
        for number in range(2):
            if branching.finished:
                break
            if number:
                known += [] if annealing.best is None else [annealing.best]
                annealing = Annealing(branching.program, known, seed + 1, stop)
            shares = branching.shares  # those of the warm-up that is about to begin may come too soon
            warm_up = pool.submit(branching.warm_up, WARM_UP)
            annealing.run(PATIENCE, most, shares)
            take()
            warm_up.result()
    branching.run(again)


__all__ = ["Anneal", "Quadratic"]
