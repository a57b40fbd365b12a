"""A problem laid out for searching: what one group sees of its neighbours."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bitplan.optimizer.problem import Choices, Integers, Mask, Problem


@dataclass(frozen=True)
class LinkTable:
    """A link as seen from one of its groups: allowed [options, options of other] and, for every active resource with
    pair costs here, its number and costs [options, options of other]."""

    other: int
    allowed: Mask
    costs: tuple[tuple[int, Integers], ...]


class Tables:
    """linear[g]: [active resources, options]; links[g]: the links of group g; limits: [active resources], as floats
    with infinity for none; `is_objective` [active resources]."""

    def __init__(self, problem: Problem) -> None:
        active = problem.active
        self.problem = problem
        self.linear = [np.stack([resource.linear[g] for resource in active]) for g in range(len(problem.groups))]
        self.constant = np.array([resource.constant for resource in active], np.int64)
        self.limits = np.array([np.inf if r.limit is None else r.limit for r in active])
        self.is_objective = np.array([resource.target == problem.objective for resource in active])
        self.links: list[list[LinkTable]] = [[] for _ in problem.groups]
        for a, b in problem.links:
            shape = (len(problem.groups[a].options), len(problem.groups[b].options))
            forbidden = problem.forbidden.get((a, b))
            allowed = np.ones(shape, np.bool_) if forbidden is None else ~forbidden
            costs = tuple((n, r.pairs[a, b]) for n, r in enumerate(active) if (a, b) in r.pairs)
            self.links[a].append(LinkTable(b, allowed, costs))
            self.links[b].append(LinkTable(a, allowed.T, tuple((n, table.T) for n, table in costs)))

    def totals(self, choices: Choices | list[int]) -> Integers:
        """The totals [active resources]."""
        totals = self.constant.copy()
        for group, option in enumerate(choices):
            totals += self.linear[group][:, option]
            for link in self.links[group]:
                if link.other > group:
                    for number, table in link.costs:
                        totals[number] += table[option, choices[link.other]]
        return totals

    def costs(self, choices: list[int], group: int) -> Integers:
        """What each option of a group would cost with all others as chosen: [active resources, options]."""
        costs = self.linear[group].copy()
        for link in self.links[group]:
            for number, table in link.costs:
                costs[number] += table[:, choices[link.other]]
        return costs

    def clashes(self, choices: list[int], group: int) -> Integers:
        """With how many neighbours, as chosen, each option of a group is forbidden: [options]."""
        found = np.zeros(self.linear[group].shape[1], np.int64)
        for link in self.links[group]:
            found += ~link.allowed[:, choices[link.other]]
        return found
