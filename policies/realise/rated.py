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
from bitplan.encodings.base import round_to_half
from bitplan.encodings.coded import Coded
from bitplan.encodings.rate_distortion import MULTIPLIER
from bitplan.policies.realise.moments import Doubles
from bitplan.policies.realise.rounding import Problem, descend, error_feedback, spreading

FINER = (0.8, 0.9, 1.0)
"""Factors on the quantiser's scales."""
RISE = 1.5
"""Of the price from one trial to the next."""
TRIALS = 6
SWEEPS = 4


@dataclass(frozen=True)
class RatedProblem(Problem):
    """Beside the error, `price` for each bit of the levels: `bits` [classes, 2 top + 1] by level from -top on, `classes`
    [G, R, K] of the weights."""

    bits: Doubles
    classes: NDArray[np.int64]
    price: float

    def nearest(self, ratio: Doubles, column: int, worth: Doubles) -> Doubles:
        """Of the nearest level, the one below it in magnitude and zero, the cheapest."""
        top = self.bits.shape[1] // 2
        bits = self.bits[self.classes[:, :, column]]
        nearest = np.clip(np.rint(ratio), -top, top)
        levels = np.stack([nearest, nearest - np.sign(nearest), np.zeros_like(nearest)])
        spent = np.take_along_axis(bits, (levels + top).astype(np.int64).transpose(1, 2, 0), 2).transpose(2, 0, 1)
        costs = worth * (ratio - levels) ** 2 + self.price * spent
        return np.asarray(np.take_along_axis(levels, costs.argmin(0)[None], 0)[0])

    def total_bits(self, levels: Doubles) -> float:
        top = self.bits.shape[1] // 2
        return float(self.bits[self.classes, (levels + top).astype(np.int64)].sum())


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
        priced = RatedProblem(
            problem.target, problem.curvature, problem.grid, bits, classes.reshape(shape), MULTIPLIER * worth
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
    return replace(fresh, levels=best[0].reshape(size).astype(np.int8), scale=round_to_half(best[1].reshape(-1)))


def within(problem: RatedProblem, scale: Doubles, allowed: float) -> tuple[Doubles, Doubles]:
    """Levels and scales from given ones, under the first price at which they take about the bits that are allowed."""
    for _ in range(TRIALS):
        levels = error_feedback(problem, scale)
        if problem.total_bits(levels) <= allowed:
            break
        problem = replace(problem, price=problem.price * RISE)
    return descend(problem, levels, scale, SWEEPS)
