"""Tries every choice: the oracle of the tests."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import product
from math import prod
from typing import ClassVar

from bitplan.optimizer.check import feasible, objective_of
from bitplan.optimizer.problem import Choices, Problem
from bitplan.optimizer.solution import Solution, Status, from_parts
from bitplan.optimizer.solvers.base import Solver

LARGEST = 100_000
"""Choices beyond which there is no point in trying them all."""


class BruteForce(Solver):
    name: ClassVar[str] = "brute-force"
    proves: ClassVar[bool] = True
    uses_starts: ClassVar[bool] = False

    def fits(self, problem: Problem) -> bool:
        return prod(len(group.options) for group in problem.groups) <= LARGEST

    def solve(self, problem: Problem, *, time_limit: float, seed: int = 0, starts: Sequence[Choices] = ()) -> Solution:
        """Of equally good choices the first in lexicographic order."""
        begin = time.perf_counter()
        best: tuple[int, Choices] | None = None
        for choices in product(*(range(len(group.options)) for group in problem.groups)):
            if feasible(problem, choices):
                objective = objective_of(problem, choices)
                if best is None or objective < best[0]:
                    best = (objective, choices)
            if time.perf_counter() - begin > time_limit:
                found = best or (None, None)
                return from_parts(found[1], found[0], None, time.perf_counter() - begin, self.name)
        seconds = time.perf_counter() - begin
        if best is None:
            return Solution(Status.INFEASIBLE, seconds=seconds, solver=self.name)
        return from_parts(best[1], best[0], best[0], seconds, self.name)
