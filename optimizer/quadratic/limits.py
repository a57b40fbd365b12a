"""Limits without their pair costs: linear resources that are never larger."""

from __future__ import annotations

import numpy as np

from bitplan.optimizer.problem import Integers, Mask
from bitplan.optimizer.quadratic.matrices import Floats, Form, Matrices


class LinearLimits:
    """linear[r] [n] @ x <= right[r] for every choice x within the limits of a program."""

    def __init__(self, program: Matrices) -> None:
        self.program = program
        self.linear = [_underestimate(program, form) for form in program.limits]
        self.right = [form.limit - form.constant for form in program.limits]

    def possible(self, kept: Integers) -> Integers:
        """The options among `kept` that fit beside the smallest ones of the other groups; exact. Empty where a group
        has none left."""
        while len(kept):
            fits: Mask = np.ones(len(kept), np.bool_)
            group = np.searchsorted(self.program.offsets, kept, side="right") - 1
            starts = np.flatnonzero(np.diff(group, prepend=-1))
            if len(starts) < self.program.groups:
                return kept[:0]
            for linear, right in zip(self.linear, self.right, strict=True):
                costs = linear[kept]
                least = np.minimum.reduceat(costs, starts)
                fits &= costs - least[group] <= right - least.sum()
            if fits.all():
                break
            kept = kept[fits]
        return kept


def _underestimate(program: Matrices, form: Form) -> Floats:
    """u [n] with constant + u @ x <= the form's total for every allowed choice x: of each table, half of what an option
    costs at least goes to the one side, and what is left at least to the other, in whole numbers."""
    linear = form.linear.copy()
    if form.pairs is None:
        return linear
    for a in range(program.groups):
        for b in range(a + 1, program.groups):
            rows, columns = program.members(a), program.members(b)
            table = form.pairs[rows, columns]
            if not table.any():
                continue
            costs = np.where(program.allowed[rows, columns], table, np.inf)
            if not (np.isfinite(costs.min(1)).all() and np.isfinite(costs.min(0)).all()):
                costs = table  # an option that nothing may stand beside: any finite cost will do
            least = np.floor(costs.min(1) / 2)
            linear[rows] += least
            linear[columns] += (costs - least[:, None]).min(0)
    return linear
