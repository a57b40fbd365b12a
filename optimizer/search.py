"""The state of a local search: choices, their totals, and moves that mend the forbidden pairs they cause."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitplan.optimizer.problem import Choices, Integers, Problem
from bitplan.optimizer.tables import Tables

LONGEST_REPAIR = 64
"""Groups that one move may change before it is given up."""


@dataclass(frozen=True)
class Move:
    """New options by group, and the totals [active resources] behind the move."""

    changes: dict[int, int]
    totals: Integers


class Search:
    """Choices and totals of a problem's active resources, changed move by move."""

    def __init__(self, problem: Problem, choices: Choices) -> None:
        self.tables = Tables(problem)
        self.choices = list(choices)
        self.totals = self.tables.totals(choices)
        limits = self.tables.limits
        scale = np.maximum(np.abs(np.where(np.isfinite(limits), limits, 1.0)), 1.0)
        self.prices: NDArray[np.float64] = np.where(np.isfinite(limits), 1.0 / scale, 0.0)
        """What a unit of each resource weighs where resources are compared: its share of the limit."""

    def objective(self, totals: Integers) -> int:
        return int(totals[self.tables.is_objective].max())

    def excess(self, totals: Integers) -> float:
        """By how much the limits are exceeded, as a sum of shares."""
        over = np.maximum(totals - self.tables.limits, 0.0)
        return float(over @ self.prices)

    def clashes(self) -> int:
        """Number of forbidden pairs among the choices, each seen from both sides."""
        return sum(int(self.tables.clashes(self.choices, g)[option]) for g, option in enumerate(self.choices))

    def apply(self, move: Move) -> None:
        for group, option in move.changes.items():
            self.choices[group] = option
        self.totals = move.totals

    def moves(self, group: int) -> Iterator[Move]:
        """Every other option of a group, with the neighbours changed where it would clash with them."""
        current = self.choices[group]
        costs = self.tables.costs(self.choices, group)
        clashes = self.tables.clashes(self.choices, group)
        for option in range(costs.shape[1]):
            if option == current:
                continue
            if clashes[option]:
                if move := self._mended(group, option):
                    yield move
            else:
                yield Move({group: option}, self.totals + costs[:, option] - costs[:, current])

    def _mended(self, group: int, option: int) -> Move | None:
        changes = {group: option}
        choices, totals = list(self.choices), self.totals.copy()
        self._change(choices, totals, group, option)
        queue = [group]
        for changed in queue:
            for link in self.tables.links[changed]:
                if link.allowed[choices[changed], choices[link.other]]:
                    continue
                if link.other in changes or len(queue) == LONGEST_REPAIR:
                    return None
                choice = self._fitting(choices, link.other, changes)
                if choice is None:
                    return None
                self._change(choices, totals, link.other, choice)
                changes[link.other] = choice
                queue.append(link.other)
        return Move(changes, totals)

    def _fitting(self, choices: list[int], group: int, changes: dict[int, int]) -> int | None:
        """The option that clashes with none of the changes, with the fewest others, and costs least."""
        links = self.tables.links[group]
        blocked = np.zeros(self.tables.linear[group].shape[1], np.bool_)
        for link in links:
            if link.other in changes:
                blocked |= ~link.allowed[:, choices[link.other]]
        if blocked.all():
            return None
        clashes = self.tables.clashes(choices, group)
        price = self.prices @ self.tables.costs(choices, group)
        return min(np.flatnonzero(~blocked).tolist(), key=lambda i: (int(clashes[i]), float(price[i]), i))

    def _change(self, choices: list[int], totals: Integers, group: int, option: int) -> None:
        costs = self.tables.costs(choices, group)
        totals += costs[:, option] - costs[:, choices[group]]
        choices[group] = option
