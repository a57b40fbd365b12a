"""Levels of small output error for encodings that code a layer's levels together, within bytes that are fixed.

There a level costs bits beside its error: (s l - w)^2 curvature + price x bits(l) is minimised column by column, errors
being fed back (`rounding.error_feedback`), and then by descent. The scales tried are finer than those of the quantiser,
because dropping levels where they hardly matter leaves bits to those that do; the price rises until the levels fit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bitplan.encodings import EncodedLayer
from bitplan.encodings.coded import Coded
from bitplan.encodings.rate_distortion import MULTIPLIER
from bitplan.policies.realise.moments import Doubles
from bitplan.policies.realise.rounding import Problem, descend, error_feedback, spreading

FINER = (1.0, 0.9, 0.8)
"""Factors on the quantiser's scales. The finer, the higher the price that is needed, so each begins with that of the one
before."""
RISE = 1.5
"""Of the price from one trial to the next."""
TRIALS = 6
SWEEPS = 4


@dataclass(eq=False)
class RatedProblem(Problem):
    """Beside the error, `price` (which may rise) for each bit of the levels: those of level l of a weight stand at `bits[zero + l]`, with
    its `zero` [K, G, R]; levels reach from -top to top."""

    bits: Doubles
    zero: NDArray[np.int64]
    top: int
    price: float

    def nearest(self, ratio: Doubles, column: int, worth: Doubles) -> Doubles:
        """Of the nearest level, the one below it in magnitude and zero, the cheapest."""
        zero = self.zero[column]
        nearest = np.clip(np.rint(ratio), -self.top, self.top)
        level, cost = nearest, self._cost(nearest, ratio, zero, worth)
        for other in (nearest - np.sign(nearest), np.zeros_like(nearest)):
            its = self._cost(other, ratio, zero, worth)
            level, cost = np.where(its < cost, other, level), np.minimum(its, cost)
        return np.asarray(level)

    def _cost(self, levels: Doubles, ratio: Doubles, zero: NDArray[np.int64], worth: Doubles) -> Doubles:
        away = ratio - levels
        return np.asarray(worth * away * away + self.price * self.bits[zero + levels.astype(np.int64)])

    def total_bits(self, levels: Doubles) -> float:
        return float(self.bits[self.zero + levels.transpose(2, 0, 1).astype(np.int64)].sum())


def rated(encoding: Coded, problem: Problem, fresh: EncodedLayer) -> EncodedLayer:
    """`fresh`, which fits its rate, or levels and scales of smaller total error that fit it too."""
    shape, size = problem.target.shape, fresh.levels.shape
    levels = fresh.levels.reshape(shape).astype(np.float64)
    scale = fresh.scale.reshape(shape[:2]).astype(np.float64)
    best = (levels, problem.fitted_scale(levels, scale))
    least = problem.error(*best).sum()
    if fresh.levels.any():
        classes, bits = encoding.class_lengths(fresh.levels, fresh.variant)
        # What a squared step of a weight is worth when all later ones make up for it, on average.
        left = 1 / np.einsum("gkk->gk", spreading(problem.curvature)) ** 2
        worth = float((left[:, None, :] * scale[..., None] ** 2).mean())
        top = bits.shape[1] // 2
        zero = np.ascontiguousarray(classes.reshape(shape).transpose(2, 0, 1)) * bits.shape[1] + top
        priced = RatedProblem(
            problem.target, problem.curvature, problem.grid, bits.ravel(), zero, top, MULTIPLIER * worth
        )
        allowed = priced.total_bits(levels)
        for factor in FINER:
            found, fitted = within(priced, scale * factor, allowed)
            kept = encoding.shrink(
                found.reshape(size).astype(np.int8), fresh.variant, importance=(fitted.reshape(-1) ** 2)
            )
            found = kept.reshape(shape).astype(np.float64)
            fitted = problem.fitted_scale(found, fitted)
            error = problem.error(found, fitted).sum()
            if error < least:
                best, least = (found, fitted), error
    return replace(fresh, levels=best[0].reshape(size).astype(np.int8)).rescaled(best[1].reshape(-1))


def within(problem: RatedProblem, scale: Doubles, allowed: float) -> tuple[Doubles, Doubles]:
    """Levels and scales from given ones, at the first price from the problem's on at which they take about the bits that are
    allowed."""
    for _ in range(TRIALS):
        levels = error_feedback(problem, scale)
        if problem.total_bits(levels) <= allowed:
            break
        problem.price *= RISE
    return descend(problem, levels, scale, SWEEPS)
