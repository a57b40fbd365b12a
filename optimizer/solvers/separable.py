"""The optimum where the pair costs of the objective are left out: what a separable loss profile would choose."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from bitplan.optimizer.check import objective_of
from bitplan.optimizer.problem import Choices, Problem
from bitplan.optimizer.solution import Solution, Status, from_parts
from bitplan.optimizer.solvers.base import Solver
from bitplan.optimizer.solvers.cp_sat import CpSat


class Separable(Solver):
    name: ClassVar[str] = "separable"
    proves: ClassVar[bool] = False
    uses_starts: ClassVar[bool] = True

    def solve(self, problem: Problem, *, time_limit: float, seed: int = 0, starts: Sequence[Choices] = ()) -> Solution:
        """CP-SAT's answer without the pair costs of the objective. Limits are kept whole, so that it is infeasible
        where the problem is."""
        begin = time.perf_counter()
        left_out = tuple(
            replace(r, pairs={}) if r in problem.objectives and r.limit is None else r for r in problem.resources
        )
        answer = CpSat().solve(replace(problem, resources=left_out), time_limit=time_limit, seed=seed, starts=starts)
        seconds = time.perf_counter() - begin
        if answer.status == Status.INFEASIBLE:
            return Solution(Status.INFEASIBLE, seconds=seconds, solver=self.name)
        objective = None if answer.choices is None else objective_of(problem, answer.choices)
        return from_parts(answer.choices, objective, None, seconds, self.name)


__all__ = ["Separable"]
