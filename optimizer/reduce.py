"""Removes options that another one of the same group dominates: exact, since each solution that holds such an option
stays feasible and gets no worse when the other one takes its place."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from bitplan.optimizer.problem import Choices, Integers, Mask, Problem, frozen
from bitplan.optimizer.tables import Tables


@dataclass(frozen=True)
class Reduced:
    """The smaller problem; `kept[g]`: the original numbers of the options kept; `stand_in[g][i]`: the kept option
    (numbered as in the smaller problem) that takes the place of the original option i."""

    problem: Problem
    kept: tuple[Integers, ...]
    stand_in: tuple[Integers, ...]

    def restore(self, choices: Choices) -> Choices:
        """Choices of the smaller problem as choices of the original one."""
        return tuple(int(kept[i]) for kept, i in zip(self.kept, choices, strict=True))

    def translate(self, choices: Choices) -> Choices:
        """Choices of the original problem as choices of the smaller one that cost no more."""
        return tuple(int(stand_in[i]) for stand_in, i in zip(self.stand_in, choices, strict=True))


def reduce(problem: Problem) -> Reduced:
    """Removes dominated options until none is left. Option k dominates i if, whatever the linked groups choose among
    what i may stand beside, k is allowed too and costs no more of any active resource."""
    tables = Tables(problem)
    alive = [np.ones(len(group.options), np.bool_) for group in problem.groups]
    into = [np.arange(len(group.options)) for group in problem.groups]
    changed = True
    while changed:
        changed = False
        for group in range(len(problem.groups)):
            changed |= _remove_dominated(problem, tables, group, alive, into[group])
    kept = tuple(np.flatnonzero(mask) for mask in alive)
    stand_in = tuple(np.searchsorted(kept[g], _followed(into[g])) for g in range(len(kept)))
    return Reduced(_restricted(problem, kept), kept, stand_in)


def _remove_dominated(problem: Problem, tables: Tables, group: int, alive: list[Mask], into: Integers) -> bool:
    if alive[group].sum() < 2:
        return False
    # worst[r, i, k]: the most that taking k for i can add to resource r
    linear = tables.linear[group]
    worst = linear[:, None, :] - linear[:, :, None]
    possible: Mask = np.ones(worst.shape[1:], np.bool_)
    for link in tables.links[group]:
        others = alive[link.other]
        allowed = link.allowed[:, others]
        possible &= ~(allowed[:, None, :] & ~allowed[None, :, :]).any(2)
        for number, table in link.costs:
            costs = table[:, others]
            difference = np.where(allowed[:, None, :], costs[None, :, :] - costs[:, None, :], np.iinfo(np.int64).min)
            worst[number] += np.where(
                allowed.any(1, keepdims=True), difference.max(2, initial=np.iinfo(np.int64).min), 0
            )
    possible &= np.all(worst <= 0, axis=0)
    changed = False
    for i in _dearest_first(problem, group):
        rivals = np.flatnonzero(possible[i] & alive[group])
        rivals = rivals[rivals != i]
        if alive[group][i] and len(rivals):
            alive[group][i] = False
            into[i] = rivals[0]
            changed = True
    return changed


def _dearest_first(problem: Problem, group: int) -> list[int]:
    """Of options that are equal in all that matters, the one that costs more of the rest goes first."""
    costs = [resource.linear[group] for resource in problem.resources]
    return sorted(range(len(problem.groups[group].options)), key=lambda i: (*(-int(c[i]) for c in costs), -i))


def _followed(into: Integers) -> Integers:
    """The end of each chain of stand-ins."""
    while not np.array_equal(into[into], into):
        into = into[into]
    return into


def _restricted(problem: Problem, kept: tuple[Integers, ...]) -> Problem:
    return Problem(
        tuple(
            replace(group, options=tuple(group.options[i] for i in indices))
            for group, indices in zip(problem.groups, kept, strict=True)
        ),
        tuple(
            replace(
                resource,
                linear=tuple(frozen(table[indices]) for table, indices in zip(resource.linear, kept, strict=True)),
                pairs={(a, b): frozen(table[np.ix_(kept[a], kept[b])]) for (a, b), table in resource.pairs.items()},
            )
            for resource in problem.resources
        ),
        problem.objective,
        {(a, b): frozen(mask[np.ix_(kept[a], kept[b])]) for (a, b), mask in problem.forbidden.items()},
    )
