"""A problem as matrices over all its options, for methods that look at every pair of options at once."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from bitplan.optimizer.problem import Integers, Mask, Problem, Resource

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Form:
    """A resource as constant + linear [n] @ x + x @ pairs [n, n] @ x / 2, with pairs symmetric and zero within a
    group. Every number is whole and below 2^53, so sums in floating point are exact."""

    constant: float
    linear: Floats
    pairs: Floats | None
    limit: float


@dataclass(frozen=True, eq=False)
class Matrices:
    """n options of all groups in a row; group g has those from offsets[g] to offsets[g + 1]. `limits`: resources whose
    limit can be exceeded; `allowed` [n, n]: false where two options may not be chosen together."""

    offsets: Integers
    objective: Form
    limits: tuple[Form, ...]
    allowed: Mask

    @property
    def groups(self) -> int:
        return len(self.offsets) - 1

    def members(self, group: int) -> slice:
        """The options of a group."""
        return slice(int(self.offsets[group]), int(self.offsets[group + 1]))


def matrices(problem: Problem) -> Matrices:
    """Raises ValueError where the objective is the largest of several resources."""
    if len(problem.objectives) != 1:
        raise ValueError(f"the objective {problem.objective!r} has {len(problem.objectives)} resources, not one")
    offsets = np.concatenate([[0], np.cumsum([len(group.options) for group in problem.groups])])
    n = int(offsets[-1])
    allowed = np.ones((n, n), np.bool_)
    for first, last in pairwise(offsets):
        allowed[first:last, first:last] = np.eye(last - first, dtype=np.bool_)
    for (a, b), mask in problem.forbidden.items():
        allowed[offsets[a] : offsets[a + 1], offsets[b] : offsets[b + 1]] &= ~mask
        allowed[offsets[b] : offsets[b + 1], offsets[a] : offsets[a + 1]] &= ~mask.T
    limits = tuple(_form(resource, offsets) for resource in problem.limited)
    return Matrices(offsets, _form(problem.objectives[0], offsets), limits, allowed)


def _form(resource: Resource, offsets: Integers) -> Form:
    n = int(offsets[-1])
    pairs = np.zeros((n, n)) if resource.pairs else None
    if pairs is not None:
        for (a, b), table in resource.pairs.items():
            pairs[offsets[a] : offsets[a + 1], offsets[b] : offsets[b + 1]] = table
            pairs[offsets[b] : offsets[b + 1], offsets[a] : offsets[a + 1]] = table.T
    limit = np.inf if resource.limit is None else float(resource.limit)
    return Form(float(resource.constant), np.concatenate(resource.linear).astype(np.float64), pairs, limit)
