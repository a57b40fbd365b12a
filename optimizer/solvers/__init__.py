"""Solvers, and `solve`, which runs what fits and keeps the best incumbent and the best bound."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from bitplan.optimizer.check import check, feasible, objective_of
from bitplan.optimizer.problem import Choices, Problem, Resource
from bitplan.optimizer.reduce import reduce
from bitplan.optimizer.solution import Solution, Status, from_parts
from bitplan.optimizer.solvers.base import Solver
from bitplan.optimizer.solvers.brute_force import BruteForce
from bitplan.optimizer.solvers.cp_sat import CpSat
from bitplan.optimizer.solvers.greedy import Greedy
from bitplan.optimizer.solvers.mathopt import Highs
from bitplan.optimizer.solvers.quadratic import Anneal, Quadratic
from bitplan.optimizer.solvers.separable import Separable

SOLVERS: tuple[Solver, ...] = (CpSat(), Highs(), Quadratic(), Separable(), Anneal(), Greedy(), BruteForce())

BY_NAME: dict[str, Solver] = {solver.name: solver for solver in SOLVERS}

GREEDY_SHARE = 0.1
FIRST_SHARE = 0.5
"""Shares of the time limit that greedy (or the separable optimum), and CP-SAT where HiGHS comes after it, may use."""
MANY_FLOWS = 500
DENSE = 2
"""Pairs of options, and of groups for every group, that have a cost together in what counts as a quadratic program."""


def solve(problem: Problem, *, time_limit: float = 60.0, seed: int = 0, starts: Iterable[Choices] = ()) -> Solution:
    """The best solution found within `time_limit` seconds and the best bound, checked in exact integers.

    `starts` are choices worth trying, such as uniform policies; the answer is never worse than one that is feasible.
    Dominated options are removed first. Where the objective or a limit has pair costs between many groups, greedy,
    the optimum without these costs of the objective and annealing give the incumbents, the doubly nonnegative relaxation
    the bound. Else CP-SAT starts
    from the best of `starts` and greedy; where it is stopped with a gap and pair terms are left, HiGHS has the rest of
    the time. Deterministic for a seed where no time runs out.
    """
    begin = time.perf_counter()
    best: Choices | None = None
    bound: int | None = None
    names: list[str] = []
    reduced = reduce(problem)

    def left() -> float:
        return max(time_limit - (time.perf_counter() - begin), 0.0)

    def offer(candidates: Iterable[Choices]) -> bool:
        nonlocal best
        before = best
        for choices in candidates:
            if feasible(reduced.problem, choices) and (
                best is None or objective_of(reduced.problem, choices) < objective_of(reduced.problem, best)
            ):
                best = choices
        return best is not before

    def finished() -> bool:
        return best is not None and bound is not None and bound >= objective_of(reduced.problem, best)

    offer(reduced.translate(choices) for choices in starts)
    for solver, share in _portfolio(reduced.problem):
        if finished() or (left() <= 0 and names):
            break
        answer = solver.solve(
            reduced.problem, time_limit=left() * share, seed=seed, starts=() if best is None else (best,)
        )
        check(reduced.problem, answer)
        if answer.status == Status.INFEASIBLE:
            if best is not None:  # checked in exact integers, which outweighs a proof in floating point
                continue
            return Solution(Status.INFEASIBLE, seconds=time.perf_counter() - begin, solver=solver.name)
        improved = answer.choices is not None and offer([answer.choices])
        if answer.bound is not None and (bound is None or answer.bound > bound):
            bound, improved = answer.bound, True
        if improved:
            names.append(solver.name)
    seconds, name = time.perf_counter() - begin, "+".join(names)
    # sums of the least entries bound any objective, and a relaxation that was stopped early can be below them
    least = max(resource.smallest for resource in reduced.problem.objectives)
    bound = least if bound is None else max(bound, least)
    if best is None:
        return from_parts(None, None, bound, seconds, name)
    answer = from_parts(reduced.restore(best), objective_of(problem, reduced.restore(best)), bound, seconds, name)
    check(problem, answer)
    return answer


def _portfolio(problem: Problem) -> Sequence[tuple[Solver, float]]:
    """The solvers to run in turn, each with the share of the remaining time that it may use."""
    greedy = (BY_NAME["greedy"], GREEDY_SHARE)
    if _dense(problem, problem.limited) and BY_NAME["quadratic"].fits(problem):
        return greedy, (BY_NAME["quadratic"], 1.0)
    if _dense(problem, problem.objectives):
        last = "quadratic" if BY_NAME["quadratic"].fits(problem) else "annealing"
        return greedy, (BY_NAME["separable"], GREEDY_SHARE), (BY_NAME[last], 1.0)
    if problem.links and BY_NAME["highs"].fits(problem):
        return greedy, (BY_NAME["cp-sat"], FIRST_SHARE), (BY_NAME["highs"], 1.0)
    return greedy, (BY_NAME["cp-sat"], 1.0)


def _dense(problem: Problem, resources: Sequence[Resource]) -> bool:
    """Whether one of these resources has pair costs between so many groups that their linear model is weak and large."""
    if len(problem.objectives) > 1:
        return False
    return any(
        sum(table.size for table in resource.pairs.values()) >= MANY_FLOWS
        and len(resource.pairs) >= DENSE * len(problem.groups)
        for resource in resources
    )


__all__ = ["BY_NAME", "SOLVERS", "Solver", "solve"]
