"""The integer program, free of networks: choose one option per group, under limits, at least cost.

    minimise   the largest resource of the objective target
    subject to each resource <= its limit, no forbidden pair chosen
    resource   = constant + sum_g linear[g][choice g] + sum_(a,b) pairs[a,b][choice a, choice b]

All numbers are integers; `builder.py` makes them from floats. Several resources may share a target: the memory target
has one resource for every execution step.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]
Mask = NDArray[np.bool_]
Link = tuple[int, int]
Choices = tuple[int, ...]
"""One option number per group."""

Scalar = TypeVar("Scalar", bound=np.generic)

LARGEST_TOTAL = 2**53
"""No resource may reach this magnitude, whatever is chosen: sums stay far below CP-SAT's 2^62, and floating-point
solvers hold every total exactly."""


@dataclass(frozen=True, slots=True)
class Group:
    """One decision: exactly one of `options` (labels) is chosen."""

    name: str
    options: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Resource:
    """Something that every choice costs.

    linear: one array [options] per group; pairs: by (a, b) with a < b, one array [options of a, options of b];
    limit: the largest total allowed (None: no limit); target: the user's word for it, shared by all resources that
    one limit or objective speaks of; resolution: what one integer unit is worth in `unit`; asked: the limit as it was
    stated, in `unit`.
    """

    name: str
    linear: tuple[Integers, ...]
    pairs: Mapping[Link, Integers] = field(default_factory=dict)
    constant: int = 0
    limit: int | None = None
    target: str = ""
    resolution: float = 1.0
    unit: str = ""
    asked: float | None = None

    @cached_property
    def largest_total(self) -> int:
        """An upper bound of the magnitude of every total."""
        tables = [*self.linear, *self.pairs.values()]
        return abs(self.constant) + sum(int(np.abs(table).max(initial=0)) for table in tables)

    @cached_property
    def smallest(self) -> int:
        """A lower bound of every total."""
        return self.constant + sum(int(table.min()) for table in [*self.linear, *self.pairs.values()])

    @cached_property
    def largest(self) -> int:
        """An upper bound of every total."""
        return self.constant + sum(int(table.max()) for table in [*self.linear, *self.pairs.values()])

    def total(self, choices: Choices) -> int:
        """The exact total of one choice per group."""
        linear = sum(int(table[i]) for table, i in zip(self.linear, choices, strict=True))
        return self.constant + linear + sum(int(table[choices[a], choices[b]]) for (a, b), table in self.pairs.items())


@dataclass(frozen=True, eq=False)
class Problem:
    """Groups, resources and forbidden pairs; `objective` is the target that is minimised (the largest of its
    resources). Raises ValueError, naming the culprit, where the parts do not fit together."""

    groups: tuple[Group, ...]
    resources: tuple[Resource, ...]
    objective: str
    forbidden: Mapping[Link, Mask] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _require_distinct("group", [group.name for group in self.groups])
        _require_distinct("resource", [resource.name for resource in self.resources])
        for group in self.groups:
            if not group.options:
                raise ValueError(f"group {group.name!r} has no options to choose from")
            _require_distinct(f"option of group {group.name!r}", list(group.options))
        for resource in self.resources:
            self._validate(resource)
        for link, mask in self.forbidden.items():
            self._validate_link(link, mask, "the forbidden pairs", np.bool_)
        objectives = self.objectives
        if not objectives:
            known = ", ".join(dict.fromkeys(resource.target for resource in self.resources)) or "none"
            raise ValueError(f"the objective {self.objective!r} is not the target of a resource; targets: {known}")
        if len({resource.resolution for resource in objectives}) > 1:
            raise ValueError(f"the resources of the objective {self.objective!r} differ in resolution")

    def _validate(self, resource: Resource) -> None:
        if len(resource.linear) != len(self.groups):
            raise ValueError(
                f"resource {resource.name!r} has linear costs for {len(resource.linear)} groups, not {len(self.groups)}"
            )
        for group, table in zip(self.groups, resource.linear, strict=True):
            what = f"resource {resource.name!r}: the costs of group {group.name!r}"
            _validate_table(table, (len(group.options),), what, np.int64)
        for link, table in resource.pairs.items():
            self._validate_link(link, table, f"resource {resource.name!r}: the pair costs", np.int64)
        if resource.largest_total >= LARGEST_TOTAL:
            raise ValueError(f"resource {resource.name!r} can reach 2^53; scale its costs down")
        if resource.limit is not None and abs(resource.limit) >= LARGEST_TOTAL:
            raise ValueError(f"the limit {resource.limit} of resource {resource.name!r} must lie within +-2^53")

    def _validate_link(self, link: Link, table: NDArray[np.generic], what: str, kind: type[np.generic]) -> None:
        a, b = link
        if not 0 <= a < b < len(self.groups):
            raise ValueError(f"{what}: link {link} must name two of the {len(self.groups)} groups in ascending order")
        first, second = self.groups[a], self.groups[b]
        what = f"{what} between {first.name!r} and {second.name!r}"
        _validate_table(table, (len(first.options), len(second.options)), what, kind)

    @cached_property
    def objectives(self) -> tuple[Resource, ...]:
        """The resources whose largest is minimised."""
        return tuple(resource for resource in self.resources if resource.target == self.objective)

    @cached_property
    def limited(self) -> tuple[Resource, ...]:
        """The resources whose limit can be exceeded by some choice."""
        return tuple(r for r in self.resources if r.limit is not None and r.largest > r.limit)

    @cached_property
    def active(self) -> tuple[Resource, ...]:
        """The resources that matter to a solver: those of the objective, and limits that can be exceeded."""
        return tuple(r for r in self.resources if r in self.objectives or r in self.limited)

    @cached_property
    def links(self) -> tuple[Link, ...]:
        """The pairs of groups that a pair cost of an active resource or a forbidden pair joins."""
        found = set(self.forbidden) | {link for resource in self.active for link in resource.pairs}
        return tuple(sorted(found))

    @property
    def limits(self) -> dict[str, list[Resource]]:
        """The resources that have a limit, by target."""
        found: dict[str, list[Resource]] = {}
        for resource in self.resources:
            if resource.limit is not None:
                found.setdefault(resource.target, []).append(resource)
        return found

    def value(self, objective: float) -> float:
        """An integer objective (or bound) in the unit of the objective."""
        return objective * self.objectives[0].resolution

    def named(self, choices: Choices) -> Iterator[tuple[str, str]]:
        """The chosen option's label for every group's name."""
        for group, option in zip(self.groups, choices, strict=True):
            yield group.name, group.options[option]


def _require_distinct(what: str, names: list[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ValueError(f"{what} {name!r} appears twice")
        seen.add(name)


def _validate_table(table: NDArray[np.generic], shape: tuple[int, ...], what: str, kind: type[np.generic]) -> None:
    if table.shape != shape:
        raise ValueError(f"{what} have shape {table.shape}, the options need {shape}")
    if table.dtype != kind:
        raise ValueError(f"{what} have type {table.dtype}, not {np.dtype(kind)}")
    if table.flags.writeable:
        raise ValueError(f"{what} can be written to; freeze the array first")


def frozen(table: NDArray[Scalar]) -> NDArray[Scalar]:
    """A copy that cannot be written to."""
    copy = np.array(table, order="C")
    copy.setflags(write=False)
    return copy
