"""Many local searches side by side, each array operation a move of all of them.

A move chooses the options of two groups anew, by Gibbs sampling: every pair of options with probability proportional
to exp(-cost / temperature), one chain as good as another. Exchanges, which leave a limit as full as it was, are among
them. What each option would cost beside the rest is kept as a matrix, brought up to date by the rows of pair costs that
a move changes, so that a move takes time linear in the number of options.
"""

from __future__ import annotations

import numpy as np

from bitplan.optimizer.problem import Integers, Mask
from bitplan.optimizer.quadratic.matrices import Floats, Form, Matrices

OVER_LIMIT = 50.0
"""What exceeding a limit costs, in temperatures, and how steeply with the share of the limit's range exceeded."""
OVER_LIMIT_SLOPE = 1e5


class Total:
    """A resource of every chain: `sums` [chains], and `field` [chains, n], the pair costs of each option beside what
    is chosen (None without pair costs)."""

    def __init__(self, form: Form, choices: Integers) -> None:
        self.form = form
        self.sums: Floats = form.constant + form.linear[choices].sum(1)
        self.field: Floats | None = None
        if form.pairs is not None:
            self.field = np.zeros((len(choices), len(form.linear)))
            for column in choices.T:
                self.field += form.pairs[column]
            self.sums += np.take_along_axis(self.field, choices, 1).sum(1) / 2

    def change(self, first: slice, second: slice, old: Integers) -> Floats:
        """By how much each pair of options would change the sums: [chains, options of first, options of second]."""
        own = self._alone(first, second, old[:, 1])
        other = self._alone(second, first, old[:, 0])
        table = own[:, :, None] + other[:, None, :]
        if self.form.pairs is not None:
            table += self.form.pairs[first, second]
        chains = np.arange(len(old))
        now = table[chains, old[:, 0] - first.start, old[:, 1] - second.start]
        return np.asarray(table - now[:, None, None])

    def _alone(self, group: slice, other: slice, chosen: Integers) -> Floats:
        """What the options of a group cost beside all but one other group."""
        if self.field is None or self.form.pairs is None:
            return np.broadcast_to(self.form.linear[group], (len(chosen), group.stop - group.start))
        return np.asarray(self.form.linear[group] + self.field[:, group] - self.form.pairs[chosen][:, group])

    def apply(self, moved: Integers, old: Integers, new: Integers, change: Floats) -> None:
        """Moves the chains numbered `moved` from options old [moved, 2] to new [moved, 2]."""
        self.sums[moved] += change
        if self.field is not None and self.form.pairs is not None:
            pairs = self.form.pairs
            self.field[moved] += pairs[new[:, 0]] - pairs[old[:, 0]] + pairs[new[:, 1]] - pairs[old[:, 1]]


class Chains:
    """choices [chains, groups]: option numbers within 0..n."""

    def __init__(self, program: Matrices, choices: Integers, random: np.random.Generator) -> None:
        self.program, self.choices, self.random = program, choices.copy(), random
        self.objective = Total(program.objective, self.choices)
        self.limits = [Total(form, self.choices) for form in program.limits]
        self.clashes: Total | None = None
        clashing = ~program.allowed
        for group in range(program.groups):
            clashing[program.members(group), program.members(group)] = False
        if clashing.any():
            form = Form(0.0, np.zeros(len(clashing)), clashing.astype(np.float64), 0.0)
            self.clashes = Total(form, self.choices)
        self.ranges = [max(float(np.ptp(form.linear)), 1.0) for form in program.limits]

    @property
    def feasible(self) -> Mask:
        """[chains]"""
        met = np.ones(len(self.choices), np.bool_)
        for total in self.limits:
            met &= total.sums <= total.form.limit
        return met if self.clashes is None else met & (self.clashes.sums == 0)

    def sweep(self, temperature: float, clash: float) -> None:
        """Chooses every group anew once, in random pairs; `clash`: what a forbidden pair costs, in temperatures."""
        order = self.random.permutation(self.program.groups)
        if len(order) % 2:
            order = np.append(order, order[0]) if len(order) > 1 else order
        for g, h in order.reshape(-1, 2).tolist() if len(order) > 1 else []:
            self._move(g, h, temperature, clash)

    def _move(self, g: int, h: int, temperature: float, clash: float) -> None:
        first, second = self.program.members(g), self.program.members(h)
        old = self.choices[:, (g, h)]
        changes = [total.change(first, second, old) for total in (self.objective, *self.limits)]
        energy = changes[0] / temperature
        for total, change, extent in zip(self.limits, changes[1:], self.ranges, strict=True):
            over = np.maximum(change + (total.sums - total.form.limit)[:, None, None], 0.0)
            energy += OVER_LIMIT * (over > 0) + (OVER_LIMIT_SLOPE / extent) * over
        clashes = None if self.clashes is None else self.clashes.change(first, second, old)
        if clashes is not None:
            energy += clash * clashes
        noise = self.random.random(energy.shape, np.float32)
        energy += np.log(
            -np.log(noise + np.float32(1e-12)) + np.float32(1e-7)
        )  # minus a Gumbel variable: exact sampling
        best = energy.reshape(len(old), -1).argmin(1)
        i, j = np.divmod(best, energy.shape[2])
        new = np.stack([first.start + i, second.start + j], 1)
        moved = np.flatnonzero((new != old).any(1))
        if not len(moved):
            return
        self.choices[moved, g], self.choices[moved, h] = new[moved].T
        i, j, old, new = i[moved], j[moved], old[moved], new[moved]
        for total, change in zip((self.objective, *self.limits), changes, strict=True):
            total.apply(moved, old, new, change[moved, i, j])
        if self.clashes is not None and clashes is not None:
            self.clashes.apply(moved, old, new, clashes[moved, i, j])
