"""From a predicted score to a loss: measured losses saturate, sums of small effects do not."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from math import exp, expm1, inf, log, log1p

import numpy as np
from numpy.typing import ArrayLike

SMALLEST = 1e-12
"""Scores and losses below it count as this where logarithms are taken."""
LARGEST = sys.float_info.max
"""Where losses end that no ceiling holds."""
STEEPEST = 8.0
"""Fitted powers lie between its inverse and it: beyond, losses have nothing to do with scores, and a limit on the loss
would be one on next to nothing, or on numbers that overflow."""
BOUNDS = np.array([300.0, log(STEEPEST), 30.0])
"""Of the logarithms of scale, power and how far the ceiling is above the highest loss."""


@dataclass(frozen=True, slots=True)
class Link:
    """loss(s) = ceiling (1 - exp(-scale s^power / ceiling)) of a score s >= 0: rises monotonically from 0, like
    scale s^power at first, towards `ceiling`. An infinite ceiling means no saturation. The default changes nothing. Losses are finite and never
    negative, whatever the three numbers are."""

    scale: float = 1.0
    power: float = 1.0
    ceiling: float = inf

    def __post_init__(self) -> None:
        """Raises ValueError unless all three are positive numbers."""
        if not (0 < self.scale < inf and 0 < self.power < inf and self.ceiling > 0):
            raise ValueError(f"{self} is no rising function; scale, power and ceiling must be positive numbers")

    def loss(self, score: float) -> float:
        """The loss at a score; a negative score counts as 0."""
        rising = min(self.scale * _power(max(score, 0.0), self.power), LARGEST)
        return rising if self.ceiling == inf else -self.ceiling * expm1(-rising / self.ceiling)

    def score(self, loss: float) -> float:
        """The score at which the loss is reached; infinite where it never is, or by no number."""
        if loss >= self.ceiling:
            return inf
        rising = max(loss, 0.0) if self.ceiling == inf else -self.ceiling * log1p(-max(loss, 0.0) / self.ceiling)
        return _power(rising / self.scale, 1 / self.power)


def _power(base: float, exponent: float) -> float:
    """base ** exponent for a base >= 0; infinite where the result is too large."""
    try:
        return float(base**exponent)
    except OverflowError:
        return inf


def fit_link(scores: ArrayLike, losses: ArrayLike) -> Link:
    """The link with the least squared error of log losses, from three or more whole policies with different scores
    [n] and their measured losses [n]. Raises ValueError for fewer, and for numbers that are not finite."""
    x = np.log(np.maximum(np.asarray(scores, np.float64), SMALLEST))
    y = np.log(np.maximum(np.asarray(losses, np.float64), SMALLEST))
    if not (np.all(np.isfinite(x)) and np.all(np.isfinite(y))):
        raise ValueError("a link needs finite scores and losses")
    if len(np.unique(x)) < 3:
        raise ValueError(f"a link needs three policies with different scores, not {len(np.unique(x))}")
    highest = float(y.max())

    def made(parameters: np.ndarray) -> Link:
        scale, power, above = np.clip(parameters, -BOUNDS, BOUNDS)
        ceiling = highest + np.logaddexp(0.0, above)
        return Link(exp(scale), exp(power), exp(ceiling) if ceiling < log(LARGEST) else inf)

    def error(parameters: np.ndarray) -> float:
        link = made(parameters)
        found = [np.log(max(link.loss(float(np.exp(score))), SMALLEST)) for score in x]
        # exponents far from 1 are not worth a slightly better fit
        return float(np.square(found - y).mean() + 0.01 * parameters[1] ** 2 + 1e-4 * parameters[2] ** 2)

    from scipy.optimize import minimize  # here, because it takes long to load and planning fits nothing

    starts = [np.array([float(np.mean(y - x)), 0.0, above]) for above in (0.0, 3.0)]
    fits = [minimize(error, start, method="Nelder-Mead", options={"maxiter": 2000}) for start in starts]
    return made(min(fits, key=lambda fit: float(fit.fun)).x)
