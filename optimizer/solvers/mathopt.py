"""HiGHS through OR-Tools MathOpt: branch and bound on the flow relaxation, in floating point.

Its answers are rechecked in exact integers: an incumbent that breaks a limit is dropped, and a bound gives up what
the solver's tolerances may have cost.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Sequence
from math import ceil, isfinite
from typing import ClassVar

import numpy as np
from ortools.math_opt.python import mathopt  # type: ignore[import-untyped]
from ortools.util.python.solve_interrupter import SolveInterrupter  # type: ignore[import-untyped]

from bitplan.optimizer.check import feasible, objective_of
from bitplan.optimizer.problem import Choices, Problem
from bitplan.optimizer.solution import Solution, Status, from_parts
from bitplan.optimizer.solvers.base import Solver
from bitplan.optimizer.solvers.flow import flow_model
from bitplan.optimizer.solvers.interrupt import interruptible

TOLERANCE = 1e-9
"""Primal and dual feasibility tolerance of rows whose largest cost is scaled to ROW_SCALE."""
ROW_SCALE = 1e4
LARGEST_MODEL = 400_000
"""Flow variables beyond which the linear programs take too long."""


class Highs(Solver):
    name: ClassVar[str] = "highs"
    proves: ClassVar[bool] = True
    uses_starts: ClassVar[bool] = False

    def fits(self, problem: Problem) -> bool:
        return flow_model(problem).flows <= LARGEST_MODEL

    def solve(self, problem: Problem, *, time_limit: float, seed: int = 0, starts: Sequence[Choices] = ()) -> Solution:
        begin = time.perf_counter()
        model, choices, unit = _model(problem)
        parameters = mathopt.SolveParameters(
            time_limit=datetime.timedelta(seconds=max(time_limit - (time.perf_counter() - begin), 0.01)),
            random_seed=seed,
            relative_gap_tolerance=0.0,
            absolute_gap_tolerance=0.4 / unit,
        )
        parameters.highs.double_options["mip_feasibility_tolerance"] = TOLERANCE
        parameters.highs.double_options["dual_feasibility_tolerance"] = TOLERANCE
        parameters.highs.double_options["primal_feasibility_tolerance"] = TOLERANCE
        interrupter = SolveInterrupter()
        result = interruptible(
            lambda: mathopt.solve(model, mathopt.SolverType.HIGHS, params=parameters, interrupter=interrupter),
            interrupter.interrupt,
        )
        seconds = time.perf_counter() - begin
        if result.termination.reason == mathopt.TerminationReason.INFEASIBLE:
            return Solution(Status.INFEASIBLE, seconds=seconds, solver=self.name)
        tolerance = unit * TOLERANCE * (1 + model.get_num_variables())
        bound = _integer_bound(result.termination.objective_bounds.dual_bound * unit, tolerance)
        for solution in result.solutions:
            if solution.primal_solution is None:
                continue
            values = solution.primal_solution.variable_values
            found = tuple(int(np.argmax([values[x] for x in options])) for options in choices)
            if feasible(problem, found):
                return from_parts(found, objective_of(problem, found), bound, seconds, self.name)
        return from_parts(None, None, bound, seconds, self.name)


def _integer_bound(bound: float, tolerance: float) -> int | None:
    """The smallest integer objective that a float bound still allows: reduced costs may be wrong by the solver's
    tolerance for every variable."""
    return ceil(bound - tolerance - 1e-3) if isfinite(bound) else None


def _model(problem: Problem) -> tuple[mathopt.Model, list[list[mathopt.Variable]], float]:
    """The model, its choice variables, and what one unit of its objective is worth in the problem's integers."""
    flows = flow_model(problem)
    model = mathopt.Model()
    choices = [[model.add_binary_variable() for _ in group.options] for group in problem.groups]
    for options in choices:
        model.add_linear_constraint(mathopt.fast_sum(options) == 1)
    terms: list[list[tuple[mathopt.Variable, int]]] = [[] for _ in flows.resources]
    for number, linear in enumerate(flows.linear):
        for options, table in zip(choices, linear, strict=True):
            terms[number] += [(x, int(cost)) for x, cost in zip(options, table, strict=True) if cost]
    for link in flows.links:
        flow = {(int(r), int(c)): model.add_variable(lb=0, ub=1) for r, c in np.argwhere(link.allowed)}
        for side in (0, 1):
            margins: list[list[mathopt.Variable]] = [[] for _ in range(link.allowed.shape[side])]
            for place, y in flow.items():
                margins[place[side]].append(y)
            members: list[list[mathopt.Variable]] = [[] for _ in margins]
            for x, number in zip(choices[link.link[side]], link.classes[side], strict=True):
                members[number].append(x)
            for margin, chosen in zip(margins, members, strict=True):
                model.add_linear_constraint(mathopt.fast_sum(margin) == mathopt.fast_sum(chosen))
        for number, table in link.costs.items():
            terms[number] += [(y, int(table[place])) for place, y in flow.items() if table[place]]
    objectives = [(r, t) for r, t in zip(flows.resources, terms, strict=True) if r in problem.objectives]
    unit = max([abs(cost) for _, t in objectives for _, cost in t], default=1) / ROW_SCALE
    for resource, costs in zip(flows.resources, terms, strict=True):
        if resource in problem.limited and resource.limit is not None:
            scale = max((abs(cost) for _, cost in costs), default=1) / ROW_SCALE
            total = mathopt.fast_sum(x * (cost / scale) for x, cost in costs)
            # loosened by what rounding may cost, so that a solution that just meets the limit is never cut off
            model.add_linear_constraint(total <= (resource.limit - resource.constant) / scale + TOLERANCE * ROW_SCALE)
    totals = [mathopt.fast_sum(x * (cost / unit) for x, cost in t) + r.constant / unit for r, t in objectives]
    if len(totals) == 1:
        model.minimize(totals[0])
    else:
        largest = model.add_variable(lb=min(r.smallest for r, _ in objectives) / unit)
        for total in totals:
            model.add_linear_constraint(total <= largest)
        model.minimize(largest)
    return model, choices, unit
