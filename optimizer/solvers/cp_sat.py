"""OR-Tools CP-SAT: exact integer arithmetic from end to end."""

from __future__ import annotations

import time
from collections.abc import Sequence
from math import ceil
from typing import ClassVar

import numpy as np
from ortools.sat.python import cp_model

from bitplan.optimizer.check import objective_of
from bitplan.optimizer.problem import Choices, Problem
from bitplan.optimizer.solution import Solution, Status, from_parts
from bitplan.optimizer.solvers.base import Solver
from bitplan.optimizer.solvers.flow import FlowModel, flow_model
from bitplan.optimizer.solvers.interrupt import interruptible


class CpSat(Solver):
    name: ClassVar[str] = "cp-sat"
    proves: ClassVar[bool] = True
    uses_starts: ClassVar[bool] = True

    def solve(self, problem: Problem, *, time_limit: float, seed: int = 0, starts: Sequence[Choices] = ()) -> Solution:
        begin = time.perf_counter()
        model, variables = _model(problem, flow_model(problem), starts)
        solver = cp_model.CpSolver()
        solver.parameters.max_time_in_seconds = max(time_limit - (time.perf_counter() - begin), 0.01)
        solver.parameters.random_seed = seed
        solver.parameters.num_workers = 1  # deterministic, and one core is left to whoever else plans
        solver.parameters.linearization_level = 2
        # OR-Tools 9.15 loses optimal solutions in this part of its presolve (github.com/google/or-tools/issues/5293)
        solver.parameters.presolve_inclusion_work_limit = 0
        solver.parameters.catch_sigint_signal = False
        status = interruptible(lambda: solver.solve(model), solver.stop_search)
        seconds = time.perf_counter() - begin
        if status == cp_model.INFEASIBLE:
            return Solution(Status.INFEASIBLE, seconds=seconds, solver=self.name)
        if status == cp_model.MODEL_INVALID:
            raise RuntimeError(f"CP-SAT refuses the model: {model.validate()}")
        bound = ceil(solver.best_objective_bound - 1e-6)
        if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
            return from_parts(None, None, bound, seconds, self.name)
        choices = tuple(next(i for i, x in enumerate(options) if solver.value(x)) for options in variables)
        return from_parts(choices, objective_of(problem, choices), bound, seconds, self.name)


def _model(
    problem: Problem, flows: FlowModel, starts: Sequence[Choices]
) -> tuple[cp_model.CpModel, list[list[cp_model.IntVar]]]:
    model = cp_model.CpModel()
    choices = [[model.new_bool_var(f"{group.name} = {option}") for option in group.options] for group in problem.groups]
    for options in choices:
        model.add_exactly_one(options)
    terms: list[tuple[list[cp_model.IntVar], list[int]]] = [([], []) for _ in flows.resources]

    def add_costs(number: int, variables: Sequence[cp_model.IntVar], costs: Sequence[int]) -> None:
        kept = [(variable, cost) for variable, cost in zip(variables, costs, strict=True) if cost]
        terms[number][0].extend(variable for variable, _ in kept)
        terms[number][1].extend(cost for _, cost in kept)

    hinted: list[tuple[cp_model.IntVar, bool]] = []
    for options, start in zip(choices, starts[0] if starts else [], strict=bool(starts)):
        hinted += [(x, i == start) for i, x in enumerate(options)]
    for number, linear in enumerate(flows.linear):
        for options, table in zip(choices, linear, strict=True):
            add_costs(number, options, [int(cost) for cost in table])
    for link in flows.links:
        a, b = link.link
        rows = [
            [x for x, c in zip(choices[a], link.classes[0], strict=True) if c == k] for k in range(len(link.allowed))
        ]
        columns = [
            [x for x, c in zip(choices[b], link.classes[1], strict=True) if c == k]
            for k in range(link.allowed.shape[1])
        ]
        flow = {(int(r), int(c)): model.new_bool_var("") for r, c in np.argwhere(link.allowed)}
        for r, members in enumerate(rows):
            model.add(sum(y for (row, _), y in flow.items() if row == r) == sum(members))
        for c, members in enumerate(columns):
            model.add(sum(y for (_, column), y in flow.items() if column == c) == sum(members))
        for number, table in link.costs.items():
            add_costs(number, list(flow.values()), [int(table[place]) for place in flow])
        if starts:
            chosen = (link.classes[0][starts[0][a]], link.classes[1][starts[0][b]])
            hinted += [(y, place == chosen) for place, y in flow.items()]
    totals = [cp_model.LinearExpr.weighted_sum(*pair) for pair in terms]
    objectives = []
    for resource, total in zip(flows.resources, totals, strict=True):
        if resource in problem.limited and resource.limit is not None:
            model.add(total <= resource.limit - resource.constant)
        if resource in problem.objectives:
            objectives.append((resource, total))
    if len(objectives) == 1:
        resource, total = objectives[0]
        model.minimize(total + resource.constant)
    else:
        largest = model.new_int_var(
            max(r.smallest for r, _ in objectives), max(r.largest for r, _ in objectives), "largest"
        )
        for resource, total in objectives:
            model.add(total + resource.constant <= largest)
        if starts:
            model.add_hint(largest, objective_of(problem, starts[0]))
        model.minimize(largest)
    for variable, value in hinted:
        model.add_hint(variable, value)
    return model, choices
