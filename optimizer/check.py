"""Feasibility and objective, recomputed in exact integers without any solver."""

from __future__ import annotations

from bitplan.errors import BitplanError
from bitplan.optimizer.problem import Choices, Problem
from bitplan.optimizer.solution import Solution, Status


class WrongSolutionError(BitplanError):
    """A solver's answer does not hold when it is recomputed: a defect of the solver or of its model."""


def objective_of(problem: Problem, choices: Choices) -> int:
    """The largest total of the objective's resources."""
    return max(resource.total(choices) for resource in problem.objectives)


def violations(problem: Problem, choices: Choices) -> list[str]:
    """What is wrong with the choices, one sentence each; empty where they are feasible."""
    if len(choices) != len(problem.groups):
        return [f"{len(choices)} choices for {len(problem.groups)} groups"]
    found = [
        f"group {group.name!r} has no option number {option}"
        for group, option in zip(problem.groups, choices, strict=True)
        if not 0 <= option < len(group.options)
    ]
    if found:
        return found
    for (a, b), mask in problem.forbidden.items():
        if mask[choices[a], choices[b]]:
            first, second = problem.groups[a], problem.groups[b]
            found.append(
                f"{first.name!r} = {first.options[choices[a]]} and {second.name!r} = {second.options[choices[b]]} "
                "are forbidden together"
            )
    for resource in problem.resources:
        if resource.limit is not None and (total := resource.total(choices)) > resource.limit:
            found.append(f"resource {resource.name!r} totals {total}, above its limit {resource.limit}")
    return found


def feasible(problem: Problem, choices: Choices) -> bool:
    """True where the choices break no limit and hold no forbidden pair."""
    return not violations(problem, choices)


def check(problem: Problem, solution: Solution) -> None:
    """Raises WrongSolutionError where any part of the solution contradicts the problem or another part."""
    wrong = f"the answer of {solution.solver or 'the solver'} is wrong"
    if solution.choices is None:
        if solution.status in (Status.OPTIMAL, Status.FEASIBLE):
            raise WrongSolutionError(f"{wrong}: it is {solution.status} but names no choices")
        return
    if solution.status not in (Status.OPTIMAL, Status.FEASIBLE):
        raise WrongSolutionError(f"{wrong}: it is {solution.status} but names choices")
    if found := violations(problem, solution.choices):
        raise WrongSolutionError(f"{wrong}: {found[0]}")
    exact = objective_of(problem, solution.choices)
    if solution.objective != exact:
        raise WrongSolutionError(f"{wrong}: it states the objective {solution.objective}, recomputed {exact}")
    if solution.bound is not None and solution.bound > exact:
        raise WrongSolutionError(f"{wrong}: its bound {solution.bound} lies above its own objective {exact}")
    if solution.status == Status.OPTIMAL and solution.bound != exact:
        raise WrongSolutionError(f"{wrong}: it is called optimal, but its bound {solution.bound} is not {exact}")
