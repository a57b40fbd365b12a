"""The same program under other limits, or with choices ruled out: what frontiers and explanations solve again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from bitplan.optimizer.problem import Choices, Problem, Resource, frozen


def under_limits(problem: Problem, limits: Mapping[str, int | None], objective: str | None = None) -> Problem:
    """The problem with other limits, integers by target (None: no limit), and perhaps another objective."""
    resources = tuple(replace(r, limit=limits[r.target]) if r.target in limits else r for r in problem.resources)
    return replace(problem, resources=resources, objective=objective or problem.objective)


def without_option(problem: Problem, group: int, option: int) -> Problem:
    """The problem in which a group may not take an option."""
    counts = [np.zeros(len(g.options), np.int64) for g in problem.groups]
    counts[group][option] = 1
    name = f"{problem.groups[group].name} is {problem.groups[group].options[option]}"
    return _with(problem, name, counts, 0)


def without_choices(problem: Problem, choices: Choices, groups: int) -> Problem:
    """The problem without these choices of the first `groups` groups: at least one of them must differ (a no-good
    cut)."""
    counts = [np.zeros(len(g.options), np.int64) for g in problem.groups]
    for group, option in enumerate(choices[:groups]):
        counts[group][option] = 1
    return _with(problem, f"the same as {choices[:groups]}", counts, groups - 1)


def _with(problem: Problem, name: str, counts: Sequence[np.ndarray], limit: int) -> Problem:
    resource = Resource(name, tuple(frozen(count) for count in counts), limit=limit, target=name)
    return replace(problem, resources=(*problem.resources, resource))
