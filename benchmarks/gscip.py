"""GSCIP on the quadratic objective as it stands: a baseline for benchmarks/solvers.py."""

from __future__ import annotations

import datetime
import time
from math import ceil, isfinite

import numpy as np
from ortools.math_opt.python import mathopt  # type: ignore[import-untyped]

from bitplan.optimizer.check import feasible, objective_of
from bitplan.optimizer.problem import Problem
from bitplan.optimizer.solution import Solution, from_parts

TOLERANCE = 1e-6
"""By what share GSCIP's bound may be off."""


def fits(problem: Problem) -> bool:
    """Whether the problem has one objective, and no limit with pair costs."""
    return len(problem.objectives) == 1 and not any(resource.pairs for resource in problem.limited)


def solve(problem: Problem, time_limit: float) -> Solution:
    """Raises ValueError for a problem that does not fit."""
    if not fits(problem):
        raise ValueError("GSCIP is only asked for one quadratic objective under linear limits")
    begin = time.perf_counter()
    model, objective = mathopt.Model(), problem.objectives[0]
    choices = [[model.add_binary_variable() for _ in group.options] for group in problem.groups]
    for options in choices:
        model.add_linear_constraint(mathopt.fast_sum(options) == 1)
    for resource in problem.limited:
        scale = max(int(np.abs(table).max()) for table in resource.linear) / 1e4
        total = [
            x * (int(c) / scale) for g, xs in enumerate(choices) for x, c in zip(xs, resource.linear[g], strict=True)
        ]
        model.add_linear_constraint(mathopt.fast_sum(total) <= (resource.limit - resource.constant) / scale)
    for (a, b), mask in problem.forbidden.items():
        for i, j in np.argwhere(mask):
            model.add_linear_constraint(choices[a][i] + choices[b][j] <= 1)
    unit = max(1, *(int(np.abs(t).max()) for t in [*objective.linear, *objective.pairs.values()])) / 1e2
    terms = [x * (int(c) / unit) for g, xs in enumerate(choices) for x, c in zip(xs, objective.linear[g], strict=True)]
    for (a, b), table in objective.pairs.items():
        terms += [choices[a][i] * choices[b][j] * (int(table[i, j]) / unit) for i, j in np.argwhere(table)]
    model.minimize(mathopt.fast_sum(terms))
    parameters = mathopt.SolveParameters(
        time_limit=datetime.timedelta(seconds=max(time_limit - (time.perf_counter() - begin), 0.01)),
        threads=1,
        relative_gap_tolerance=0.0,
    )
    result = mathopt.solve(model, mathopt.SolverType.GSCIP, params=parameters)
    seconds = time.perf_counter() - begin
    dual = result.termination.objective_bounds.dual_bound
    bound = ceil((dual - TOLERANCE * abs(dual)) * unit) + objective.constant if isfinite(dual) else None
    for solution in result.solutions:
        values = solution.primal_solution.variable_values
        found = tuple(int(np.argmax([values[x] for x in options])) for options in choices)
        if feasible(problem, found):
            return from_parts(found, objective_of(problem, found), bound, seconds, "gscip")
    return from_parts(None, None, bound, seconds, "gscip")
