"""Collects costs as floats and makes a Problem of integers: the one place where anything is scaled.

A resource whose costs are counts (bytes, weights) keeps them as they are. Any other gets a resolution, the power of two
that makes its largest possible total about 2^36 units, and each cost is rounded to the nearest unit. So a total is off
by at most half a unit per group and link, some 10^-11 of the largest total each; limits are loosened by that much, and
a choice that meets a limit in floats meets it in integers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil, floor, frexp, isfinite

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bitplan.optimizer.problem import LARGEST_TOTAL, Group, Integers, Link, Mask, Problem, Resource, frozen

TOTAL_BITS = 36
Floats = NDArray[np.float64]


@dataclass
class _Costs:
    target: str
    unit: str
    counted: bool
    limit: float | None
    linear: dict[int, Floats] = field(default_factory=dict)
    pairs: dict[Link, Floats] = field(default_factory=dict)
    constant: float = 0.0


class ProblemBuilder:
    """Add groups first, then resources and their costs; costs of the same place add up. Costs that are not finite
    numbers, and counted ones that are not whole, raise ValueError with resource, group and option."""

    def __init__(self) -> None:
        self.groups: list[Group] = []
        self._costs: dict[str, _Costs] = {}
        self._forbidden: dict[Link, Mask] = {}

    def add_group(self, name: str, options: Sequence[str]) -> int:
        """Adds a decision and returns its number."""
        self.groups.append(Group(name, tuple(options)))
        return len(self.groups) - 1

    def add_resource(
        self, name: str, *, target: str = "", unit: str = "", counted: bool = False, limit: float | None = None
    ) -> None:
        """Adds a resource without costs; `target` is its own name unless given."""
        if name in self._costs:
            raise ValueError(f"resource {name!r} appears twice")
        if limit is not None and not isfinite(limit):
            raise ValueError(f"the limit of resource {name!r} is {limit}; it must be finite, or None for no limit")
        self._costs[name] = _Costs(target or name, unit, counted, limit)

    def add_constant(self, resource: str, cost: float) -> None:
        """Adds a cost that no choice changes."""
        if not isfinite(cost):
            raise ValueError(f"resource {resource!r}: the constant cost is {cost}")
        self._costs[resource].constant += cost

    def add_linear(self, resource: str, group: int, costs: ArrayLike) -> None:
        """Adds the costs [options] of a group."""
        table = np.asarray(costs, np.float64)
        self._require_finite(resource, (group,), table)
        linear = self._costs[resource].linear
        linear[group] = linear[group] + table if group in linear else table.copy()

    def add_pair(self, resource: str, first: int, second: int, costs: ArrayLike) -> None:
        """Adds the costs [options of first, options of second] of two different groups, in either order."""
        table = np.asarray(costs, np.float64)
        self._require_finite(resource, (first, second), table)
        if first > second:
            first, second, table = second, first, table.T
        pairs = self._costs[resource].pairs
        pairs[first, second] = pairs[first, second] + table if (first, second) in pairs else table.copy()

    def forbid(self, first: int, second: int, mask: ArrayLike) -> None:
        """Forbids the pairs of options where `mask` [options of first, options of second] is true."""
        table = np.asarray(mask, np.bool_)
        if first > second:
            first, second, table = second, first, table.T
        earlier = self._forbidden.get((first, second))
        self._forbidden[first, second] = table.copy() if earlier is None else earlier | table

    def build(self, objective: str) -> Problem:
        """The Problem, validated. Raises ValueError."""
        resources = tuple(
            resource
            for target in dict.fromkeys(costs.target for costs in self._costs.values())
            for resource in self._resources_of(target)
        )
        return Problem(
            tuple(self.groups),
            resources,
            objective,
            {link: frozen(mask) for link, mask in sorted(self._forbidden.items())},
        )

    def _resources_of(self, target: str) -> list[Resource]:
        """The resources of one target share one resolution, so that they can be compared."""
        named = {name: costs for name, costs in self._costs.items() if costs.target == target}
        resolution = max(1.0 if costs.counted else _resolution(_largest(costs)) for costs in named.values())
        return [self._resource(name, costs, resolution) for name, costs in named.items()]

    def _resource(self, name: str, costs: _Costs, resolution: float) -> Resource:
        if costs.counted and _largest(costs) >= LARGEST_TOTAL:
            raise ValueError(
                f"resource {name!r} can reach {_largest(costs):.3g}, more than can be counted exactly (2^53)"
            )

        def scaled(table: Floats, where: tuple[int, ...]) -> Integers:
            units = np.rint(table / resolution)
            if costs.counted and not np.array_equal(units, table):
                place = np.unravel_index(int(np.argmax(units != table)), table.shape)
                raise ValueError(f"{self._place(name, where, place)} is {table[place]}, not a whole number")
            return frozen(units.astype(np.int64))

        nothing = [np.zeros(len(group.options)) for group in self.groups]
        linear = tuple(scaled(costs.linear.get(g, nothing[g]), (g,)) for g in range(len(self.groups)))
        pairs = {link: scaled(table, link) for link, table in sorted(costs.pairs.items()) if np.any(table)}
        constant = int(scaled(np.array([costs.constant]), ())[0])
        limit = None
        if costs.limit is not None:
            slack = 0 if costs.counted else ceil((1 + len(linear) + len(pairs)) / 2)
            limit = floor(max(-(2.0**52), min(2.0**52, costs.limit / resolution))) + slack
        return Resource(name, linear, pairs, constant, limit, costs.target, resolution, costs.unit, costs.limit)

    def _require_finite(self, resource: str, where: tuple[int, ...], table: Floats) -> None:
        expected = tuple(len(self.groups[group].options) for group in where)
        if table.shape != expected:
            names = " and ".join(repr(self.groups[group].name) for group in where)
            raise ValueError(f"resource {resource!r}: costs of {names} have shape {table.shape}, not {expected}")
        if not np.all(np.isfinite(table)):
            place = np.unravel_index(int(np.argmin(np.isfinite(table))), table.shape)
            raise ValueError(f"{self._place(resource, where, place)} is {table[place]}, not a finite number")

    def _place(self, resource: str, where: tuple[int, ...], place: tuple[np.intp, ...]) -> str:
        options = [
            f"{self.groups[group].name!r} = {self.groups[group].options[int(option)]}"
            for group, option in zip(where, place, strict=False)
        ]
        return f"resource {resource!r}: the cost of {' with '.join(options) or 'everything together'}"


def _largest(costs: _Costs) -> float:
    tables = [*costs.linear.values(), *costs.pairs.values()]
    return abs(costs.constant) + sum(float(np.abs(table).max(initial=0)) for table in tables)


def _resolution(largest: float) -> float:
    """The power of two r with 2^(TOTAL_BITS - 1) <= largest / r < 2^TOTAL_BITS."""
    return 2.0 ** max(frexp(largest)[1] - TOTAL_BITS, -1000) if largest > 0 else 1.0
