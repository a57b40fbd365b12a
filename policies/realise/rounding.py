"""Rounding of weights to levels so that the layer's output error is small, not the weights'.

All functions work on groups of rows at once: target v [G, R, K], symmetric curvature H [G, K, K] (a covariance of what
the rows read), levels [G, R, K] and scales [G, R]; the error of a row is (s l - v)' H (s l - v).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from bitplan.encodings.grid import Grid

Doubles = NDArray[np.float64]

BLOCK = 64
"""Columns whose effect on later ones is applied in one product."""


@dataclass(eq=False)
class Problem:
    """What is minimised: the rows' target, their curvature, and the levels that each weight may take [G R, K]."""

    target: Doubles
    curvature: Doubles
    grid: Grid

    @cached_property
    def feedback(self) -> tuple[NDArray[np.int64], Doubles]:
        """The order of columns, those of most curvature first ("act-order" in GPTQ's code), and how the error of each is
        spread over those behind it [G, K, K] (`spreading`)."""
        order = np.argsort(-np.einsum("gkk->gk", self.curvature).sum(0), kind="stable")
        return order, spreading(self.curvature[:, order][:, :, order])

    def error(self, levels: Doubles, scale: Doubles) -> Doubles:
        """The error of every row, [G, R]."""
        away = scale[..., None] * levels - self.target
        return np.asarray(np.maximum((away * (away @ self.curvature)).sum(2), 0.0))

    def fitted_scale(self, levels: Doubles, scale: Doubles) -> Doubles:
        """The scales of least error for given levels; where that is not positive, the scale as it was."""
        reached = levels @ self.curvature
        energy = (levels * reached).sum(2)
        best = (reached * self.target).sum(2) / np.where(energy > 0, energy, 1)
        return np.where((energy > 0) & (best > 0), best, scale)

    def nearest(self, ratio: Doubles, column: int, worth: Doubles) -> Doubles:
        """The nearest level to each weight / scale [G, R] of one column, a squared step of which is `worth` [G, R] an
        error of so much."""
        return self.grid.nearest(ratio.reshape(-1), column).reshape(ratio.shape)


def error_feedback(problem: Problem, scale: Doubles) -> Doubles:
    """Levels for given scales, column by column, each column's error being made up for by the columns that are still
    free (GPTQ, arXiv 2210.17323, section 3)."""
    groups, _, columns = problem.target.shape
    order, factor = problem.feedback
    left = problem.target[:, :, order].copy()
    levels = np.empty_like(left)
    safe = np.where(scale > 0, scale, 1.0)
    for start in range(0, columns, BLOCK):
        stop = min(start + BLOCK, columns)
        errors = np.empty((groups, left.shape[1], stop - start))
        for j in range(start, stop):
            worth = (safe / factor[:, None, j, j]) ** 2
            found = problem.nearest(left[:, :, j] / safe, int(order[j]), worth)
            levels[:, :, j] = found
            error = (left[:, :, j] - scale * found) / factor[:, None, j, j]
            left[:, :, j + 1 : stop] -= error[:, :, None] * factor[:, None, j, j + 1 : stop]
            errors[:, :, j - start] = error
        left[:, :, stop:] -= errors @ factor[:, start:stop, stop:]
    result = np.empty_like(levels)
    result[:, :, order] = levels
    return result


def spreading(curvature: Doubles) -> Doubles:
    """The upper Cholesky factor of the inverse [G, K, K]: its rows say how an error is spread over the later columns, and
    its diagonal squared is what is left of a column's curvature, inverted, when they have made up for it. A curvature
    that is singular in floating point is damped until it is not."""
    columns = np.arange(curvature.shape[1])
    mean = curvature[:, columns, columns].mean(1, keepdims=True)
    for share in (0.0, 1e-9, 1e-6, 1e-3):
        damped = curvature.copy()
        damped[:, columns, columns] += share * mean
        try:
            return np.asarray(np.linalg.cholesky(np.linalg.inv(damped)).transpose(0, 2, 1))
        except np.linalg.LinAlgError:
            continue
    # As good as constant inputs: every column for itself.
    diagonal = np.maximum(curvature[:, columns, columns], 1e-3 * mean + 1e-300)
    return np.asarray(np.sqrt(1 / diagonal)[:, :, None] * np.eye(len(columns)))


def descend(problem: Problem, levels: Doubles, scale: Doubles, sweeps: int) -> tuple[Doubles, Doubles]:
    """Cyclic coordinate descent on the levels with the closed-form scale after each sweep: no step raises any row's
    error (or what the problem minimises beside it). Ends early once neither a level nor a scale changes."""
    groups, rows, columns = levels.shape
    levels = levels.copy()
    diagonal = np.einsum("gkk->gk", problem.curvature)
    for _ in range(sweeps):
        safe = np.where(scale > 0, scale, 1.0)
        slope = (scale[..., None] * levels - problem.target) @ problem.curvature
        changed = False
        for start in range(0, columns, BLOCK):
            stop = min(start + BLOCK, columns)
            moves = np.zeros((groups, rows, stop - start))
            local = slope[:, :, start:stop]
            for j in range(start, stop):
                curve = np.maximum(diagonal[:, None, j], 1e-300)
                wanted = levels[:, :, j] - local[:, :, j - start] / (curve * safe)
                move = np.where(scale > 0, problem.nearest(wanted, j, curve * safe**2) - levels[:, :, j], 0.0)
                if not move.any():
                    continue
                levels[:, :, j] += move
                moves[:, :, j - start] = step = scale * move
                local += step[:, :, None] * problem.curvature[:, None, j, start:stop]
                changed = True
            slope[:, :, stop:] += moves @ problem.curvature[:, start:stop, stop:]
        before, scale = scale, problem.fitted_scale(levels, scale)
        if not changed and np.array_equal(scale, before):
            break
    return levels, scale
