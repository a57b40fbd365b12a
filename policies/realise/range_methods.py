"""How the range of a value in codes follows from where its numbers lie: one function for each method by name.

Zero is always exactly representable, with zero point 0 where no number is negative; only u1 may have the levels
-scale / 2 and scale / 2 for a value with both signs. One bit says on which side of a threshold a number lies, so that
there nothing but the squared error tells ranges apart, and all methods are `mse`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from bitplan.formats import Range, top_code
from bitplan.policies.realise.spread import BINS, Floats, Spread
from bitplan.recovery_names import DEFAULT_RANGES, KL, MINMAX, MSE, PERCENTILE
from bitplan.variant import U1, U2, U4, U8

SHRINK = np.geomspace(1.0, 0.05, 160)
"""Candidate scales in u8 as fractions of the one that clips nothing."""

LOW_SHRINK = np.geomspace(1.0, 0.01, 232)
"""The same below u8, where the tails of a value count for less: steps of 2 %."""

PERCENTILES = {U8: 0.9999, U4: 0.999, U2: 0.99}
"""Share of the numbers below the upper end of the range, and of those above its lower end: fewer codes reach less far."""


def best_range(spread: Spread, form: str, method: str = DEFAULT_RANGES) -> Range:
    """The scale and zero point in a format of codes by one of `METHODS`."""
    if spread.high <= spread.low:
        return Range(1.0, 0)
    return METHODS[MSE if form == U1 else method](spread, form)


def least_squares(spread: Spread, form: str) -> Range:
    """The range of least squared error of rounding and clipping, over scale and zero point."""
    top = top_code(form)
    # In u1 the two levels lie inside: with a zero point of 0.5, up to two magnitudes apart.
    widest = 2 * max(spread.high, -spread.low) if form == U1 else whole(spread.low, spread.high, top).scale
    scales = widest * (SHRINK if form == U8 else LOW_SHRINK)[:, None]
    zero_points = _zero_points(spread, form)
    errors = _error_of_bytes if form == U8 else _error_of_codes
    return _least(scales, zero_points, errors(spread, scales, zero_points, top))


def percentile(spread: Spread, form: str) -> Range:
    """The range that clips a fixed share of the numbers at either end (PERCENTILES)."""
    share = PERCENTILES[form]
    below = np.cumsum(spread.counts) + np.where(spread.centres >= 0, spread.zeros, 0.0)
    total = below[-1]
    high = spread.centres[min(np.searchsorted(below, share * total), BINS - 1)]
    low = spread.centres[min(np.searchsorted(below, (1 - share) * total), BINS - 1)]
    return whole(0.0 if spread.low >= 0 else float(low), 0.0 if spread.high <= 0 else float(high), top_code(form))


def entropy(spread: Spread, form: str) -> Range:
    """The range of least Kullback-Leibler divergence from the histogram to what is left of it in codes (Migacz, "8-bit
    inference with TensorRT", GTC 2017), with a zero point: the histogram with what is clipped added at its ends, against
    each code's mass inside spread over those of its bins that are not empty."""
    top = top_code(form)
    scales = whole(spread.low, spread.high, top).scale * (SHRINK if form == U8 else LOW_SHRINK)[:, None]
    scales = scales[scales[:, 0] * BINS >= spread.high - spread.low]  # a code narrower than a bin loses nothing
    zero_points = _zero_points(spread, form)
    return _least(scales, zero_points, _divergence(spread, scales, zero_points, top))


def minimum_maximum(spread: Spread, form: str) -> Range:
    """The finest range that clips nothing."""
    return whole(spread.low, spread.high, top_code(form))


METHODS: Mapping[str, Callable[[Spread, str], Range]] = {
    MSE: least_squares,
    PERCENTILE: percentile,
    KL: entropy,
    MINMAX: minimum_maximum,
}


def whole(low: float, high: float, top: int = 255) -> Range:
    """The finest range of codes 0..top that clips nothing between low and high and has zero on its grid."""
    low, high = min(low, 0.0), max(high, 0.0)
    if low == high:
        return Range(1.0, 0)
    scale = (high - low) / top
    zero_point = round(-low / scale)
    # Rounding the zero point moves one end inwards by up to half a step: widen until both ends are inside.
    if zero_point > 0:
        scale = max(scale, -low / zero_point)
    if zero_point < top:
        scale = max(scale, high / (top - zero_point))
    return Range(float(np.float32(scale)), zero_point)


def _zero_points(spread: Spread, form: str) -> Floats:
    """The candidates, [1, zero points]."""
    if spread.low >= 0:
        return np.array([[0.0]])
    if spread.high <= 0:
        return np.array([[float(top_code(form))]])
    return np.array([[0, 0.5, 1]]) if form == U1 else np.arange(top_code(form) + 1.0)[None, :]


def _least(scales: Floats, zero_points: Floats, error: Floats) -> Range:
    row, column = np.unravel_index(np.argmin(error), error.shape)
    zero_point = zero_points[0, column].item()
    return Range(float(np.float32(scales[row, 0])), zero_point if zero_point % 1 else int(zero_point))


def _error_of_bytes(spread: Spread, scales: Floats, zero_points: Floats, top: int) -> Floats:
    """The squared error [scales, zero points] of fine steps: step^2 / 12 for every nonzero number inside, the squared
    distance to the nearer end for every number outside."""
    low, high = -zero_points * scales, (top - zero_points) * scales
    rounding: Floats = spread.counts.sum() * scales**2 / 12
    above = _clipping(spread.centres, spread.counts, high)
    below = _clipping(-spread.centres[::-1], spread.counts[::-1], -low)
    return rounding + above + below


def _error_of_codes(spread: Spread, scales: Floats, zero_points: Floats, top: int) -> Floats:
    """The squared error [scales, zero points] of few codes, each of which stands for the bins between two thresholds:
    sum over codes of sum of count (x - level)^2, from the moments of all bins below a threshold."""
    moments = [np.append(0.0, np.cumsum(spread.counts * spread.centres**power)) for power in (0, 1, 2)]
    error: Floats = spread.zeros * (zero_points % 1 * scales) ** 2
    first = np.zeros(error.shape, np.int64)
    for code in range(top + 1):
        threshold = (code + 0.5 - zero_points) * scales
        stop = np.searchsorted(spread.centres, threshold) if code < top else np.full_like(first, BINS)
        zeroth, one, two = (moment[stop] - moment[first] for moment in moments)
        level = (code - zero_points) * scales
        error += two - 2 * level * one + level**2 * zeroth
        first = stop
    return error


def _clipping(centres: Floats, counts: Floats, end: Floats) -> Floats:
    """sum of count (x - end)^2 over x > end, for each end; from the moments of all bins above it."""

    def above(moment: Floats) -> Floats:
        return np.append(np.cumsum(moment[::-1])[::-1], 0.0)

    first = np.searchsorted(centres, end, side="right")
    zeroth, one, two = (above(counts * centres**power)[first] for power in (0, 1, 2))
    return np.maximum(two - 2 * end * one + end**2 * zeroth, 0.0)


def _divergence(spread: Spread, scales: Floats, zero_points: Floats, top: int) -> Floats:
    """The divergence [scales, zero points] of `entropy`. With n bins of a code that are not empty and mass m in them,
    sum p log p - sum p log (m / (n M)), where M is the mass inside."""
    counts = spread.counts / spread.counts.sum()
    mass, filled = (np.append(0.0, np.cumsum(x)) for x in (counts, counts > 0))
    information = np.append(0.0, np.cumsum(_x_log_x(counts)))

    def bins_below(ends: Floats) -> NDArray[np.int64]:
        return np.searchsorted(spread.centres, ends)

    first = bins_below((-0.5 - zero_points) * scales)
    last = bins_below((top + 0.5 - zero_points) * scales)
    inside = mass[last] - mass[first]
    below, above = mass[first], 1 - mass[last]
    # What is clipped adds to the outermost bins.
    found = information[last] - information[first]
    for clipped, position in ((below, np.minimum(first, BINS - 1)), (above, np.maximum(last - 1, 0))):
        found = found + _x_log_x(counts[position] + clipped) - _x_log_x(counts[position])
    start = first
    for code in range(top + 1):
        stop = bins_below((code + 0.5 - zero_points) * scales)
        held, bins = mass[stop] - mass[start], filled[stop] - filled[start]
        reference = held + (below if code == 0 else 0) + (above if code == top else 0)
        share = held / np.maximum(bins * inside, 1e-300)
        found = found - reference * np.log(np.maximum(share, 1e-12))
        start = stop
    return np.where(inside > 0, found, np.inf)


def _x_log_x(x: Floats) -> Floats:
    return np.asarray(x * np.log(np.maximum(x, 1e-300)))
