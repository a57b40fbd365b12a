"""Entropy-constrained scalar quantisation: the levels of least squared error whose coded bytes fit.

A weight w of a row with scale s takes the level l that minimises (w - s l)^2 + multiplier x bits(l), where the bits are
those of l's class of activity (Chou, Lookabaugh, Gray 1989; of neural networks: arXiv 1905.08318). Levels and bits
depend on each other, so that they are found in turns.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitplan.encodings.activity import ACTIVITIES, activities, start_mean
from bitplan.encodings.frequencies import PRECISION, divide, entropies, law_cost
from bitplan.encodings.level_stream import Levels, Model, best_model, counts_by_activity, encode, lanes_for

Rows = NDArray[np.float64]

TURNS = 2
CLOSE = 0.01
"""A candidate that exceeds its capacity by so little is cut to size."""
EVALUATIONS = 14
LEAST_SAVING = 0.1
"""What a step towards zero counts as at least, in bits: where zeros are rare yet, they become cheaper on the way."""
MULTIPLIER = 0.13
"""Of a layer of many levels, in squared steps; 2 ln 2 / 12 = 0.116 at high rates [derived]."""


@dataclass(frozen=True)
class Candidate:
    """Levels [out, K], the scale [out] that they were chosen for, and about how many bytes they take."""

    levels: Levels
    scale: Rows
    size: float


class Census:
    """How often each magnitude occurs in which class of activity, and what that says of bits and bytes: quickly and
    within about a percent, as tables are not formed."""

    def __init__(self, levels: Levels, lanes: int) -> None:
        found = activities(levels, start_mean(levels), lanes)
        by_activity = counts_by_activity(levels, found)
        self.thresholds = divide(by_activity, law_cost(by_activity.shape[1] - 1))
        self.counts = np.add.reduceat(by_activity, [0, *self.thresholds])
        self.classes = np.searchsorted(self.thresholds, np.arange(ACTIVITIES), side="right")[found]
        tables = len(self.counts) * law_cost(self.counts.shape[1] - 1)
        signs = int(self.counts[:, 1:].sum())
        self.size = 4 + 4 * lanes + (float(entropies(self.counts).sum()) + signs + tables) / 8
        """Bytes, about."""

    def bits(self, top: int) -> NDArray[np.float64]:
        """Bits of each magnitude in each class, [classes, top + 1]; those that never occur have the bits of half an
        occurrence, spread over all of them."""
        counts = np.pad(self.counts.astype(np.float64), ((0, 0), (0, top + 1 - self.counts.shape[1])))
        counts = np.where(counts > 0, counts, 0.5 / (top + 1))
        counts[:, 1:] /= 2
        total = counts[:, :1] + 2 * counts[:, 1:].sum(1, keepdims=True)
        return np.asarray(np.minimum(-np.log2(counts / total), PRECISION))


def cheapest_levels(ideal: Rows, multiplier: float, bits: NDArray[np.float64], classes: NDArray[np.int64]) -> Levels:
    """Levels by weight: of the nearest, the one below it in magnitude and zero, that of least error and bits. `ideal`:
    weights in steps; `multiplier`: squared steps per bit; bits [classes, top + 1]."""
    top = bits.shape[1] - 1
    magnitude = np.abs(ideal)
    nearest = np.minimum(np.rint(magnitude), top).astype(np.int64)
    flat = classes * (top + 1)
    best = np.zeros_like(nearest)
    least = magnitude**2 + multiplier * bits.ravel()[flat]
    for lower in (1, 0):
        level = np.maximum(nearest - lower, 0)
        cost = (magnitude - level) ** 2 + multiplier * bits.ravel()[flat + level]
        better = cost < least
        best[better], least[better] = level[better], cost[better]
    return np.asarray(np.sign(ideal) * best, np.int8)


def least_squares_scale(rows: Rows, levels: Levels, otherwise: Rows) -> Rows:
    """The scale [out] of least squared error for given levels; `otherwise` where all are zero."""
    energy = (levels.astype(np.float64) ** 2).sum(1)
    return np.asarray(np.where(energy > 0, (rows * levels).sum(1) / np.maximum(energy, 1), otherwise))


def of_one_step(rows: Rows, step: float, top: int, lanes: int) -> Candidate:
    """Levels that settle with one step for all rows."""
    ideal, scale = rows / step, np.full(len(rows), step)
    levels = np.clip(np.rint(ideal), -top, top).astype(np.int8)
    for _ in range(TURNS):
        if not levels.any():
            return Candidate(levels, scale, 1)
        census = Census(levels, lanes)
        levels = cheapest_levels(ideal, MULTIPLIER, census.bits(top), census.classes)
    return Candidate(levels, scale, Census(levels, lanes).size if levels.any() else 1)


def of_three_levels(rows: Rows, price: float, lanes: int) -> Candidate:
    """Levels -1, 0, 1 that settle with a scale for every row, where a weight that is not zero costs as much as a squared
    error of `price` on average. (The price of a bit would not do: the fewer are left, the more bits each of them takes,
    so that levels would collapse to zero all at once.)"""
    mean = np.abs(rows).mean(1)
    scale = np.where(mean > 0, 1.5 * mean, 1)
    levels = np.zeros(rows.shape, np.int8)
    for turn in range(6):
        margin: float | NDArray[np.float64] = 1.0
        if turn > 2 and levels.any():  # costs by class
            census = Census(levels, lanes)
            bits = census.bits(1)
            margin = (bits[:, 1] - bits[:, 0])[census.classes]
            margin = margin / max(float(margin.mean()), 0.1)
        kept = 2 * np.abs(rows) > scale[:, None] + price * margin / scale[:, None]
        levels = (np.sign(rows) * kept).astype(np.int8)
        scale = least_squares_scale(rows, levels, scale)
    return Candidate(levels, scale, Census(levels, lanes).size if levels.any() else 1)


def search(evaluate: Callable[[float], Candidate], low: float, high: float, capacity: int) -> list[Candidate]:
    """The candidates on both sides of the capacity, or one that is just above it; `evaluate(x)` shrinks with x."""
    above, below = evaluate(low), evaluate(high)
    if above.size <= capacity:
        return [above]
    aim = capacity * (1 + CLOSE / 2)
    for _ in range(EVALUATIONS):
        if high - low < 1e-3:
            break
        high_ratio, low_ratio = np.log(above.size / aim), np.log(max(below.size, 0.02 * capacity) / aim)
        share = high_ratio / (high_ratio - low_ratio) if low_ratio < 0 < high_ratio else 0.5
        middle = low + (high - low) * float(np.clip(share, 0.03, 0.97))
        found = evaluate(middle)
        if capacity <= found.size <= capacity * (1 + CLOSE):
            return [found]
        if found.size > capacity:
            above, low = found, middle
        else:
            below, high = found, middle
    return [above, below]


def model_bytes(levels: Levels, model: Model) -> float:
    """Bytes of coded levels but for how the last states happen to end, which on average saves a byte a lane."""
    sizes = model.tables.frequencies[model.classes(levels), np.abs(levels.astype(np.int64))]
    return len(model.head()) + 4 * model.lanes + float((PRECISION - np.log2(sizes)).sum()) / 8


def shrink(levels: Levels, capacity: int, ideal: Rows, importance: Rows) -> Levels:
    """Levels that fit, by moving the cheapest towards zero: least added error per bit that is saved. `ideal`: what
    they stand for, in steps; `importance` [out]: a squared step of each row."""
    lanes = lanes_for(len(levels), capacity)
    levels, spare = levels.copy(), 0.0
    while True:
        if not levels.any():
            return levels
        model = best_model(levels, lanes)
        excess = model_bytes(levels, model) - capacity + spare
        if excess <= 0:
            over = len(encode(levels, lanes)) - capacity
            if over <= 0:
                return levels
            excess, spare = float(over), spare + over
        excess = min(excess, 1 + capacity / 10)  # bits change with the levels, so large steps would go too far
        levels = _smaller(levels, Census(levels, lanes), 8 * excess, ideal, importance)


def _smaller(levels: Levels, census: Census, excess: float, ideal: Rows, importance: Rows) -> Levels:
    """Some levels closer to zero, so that about `excess` bits are saved."""
    at = np.flatnonzero(levels)
    magnitude = np.abs(levels.ravel()[at].astype(np.int64))
    bits = census.bits(int(magnitude.max()))
    classes = census.classes.ravel()[at]
    exact = np.abs(ideal.ravel()[at]) * (np.sign(ideal.ravel()[at]) == np.sign(levels.ravel()[at]))
    weight = importance[at // levels.shape[1]]
    ratio, target, saved = np.full(len(at), np.inf), np.zeros_like(magnitude), np.zeros(len(at))
    for to in (magnitude - 1, np.zeros_like(magnitude)):
        saving = bits[classes, magnitude] - bits[classes, to]
        harm = weight * ((exact - to) ** 2 - (exact - magnitude) ** 2)
        price = harm / np.maximum(saving, LEAST_SAVING)
        better = price < ratio
        ratio[better], target[better], saved[better] = price[better], to[better], saving[better]
    order = np.argsort(ratio, kind="stable")
    result = levels.copy()
    count = int(np.searchsorted(np.cumsum(np.maximum(saved[order], LEAST_SAVING)), excess)) + 1
    chosen = order[:count]
    result.ravel()[at[chosen]] = np.sign(levels.ravel()[at[chosen]]) * target[chosen]
    return result


def quantise_at_rate(rows: Rows, capacity: int, top: int) -> tuple[Levels, Rows]:
    """Levels [out, K] of -top..top that fit into `capacity` bytes, and their scales [out]: chosen for one step of all
    rows where there are many levels; with three of them for a scale of every row."""
    largest = float(np.abs(rows).max())
    if largest == 0:
        return np.zeros(rows.shape, np.int8), np.zeros(len(rows))
    lanes = lanes_for(len(rows), capacity)
    if top == 1:
        power = float((rows**2).mean())
        found = search(lambda x: of_three_levels(rows, power * 2.0**x, lanes), -8.0, 8.0, capacity)
    else:
        low, high = np.log2(largest / top), np.log2(4 * largest)
        found = search(lambda x: of_one_step(rows, 2.0**x, top, lanes), low, high, capacity)
    fitted = [_cut(rows, candidate, capacity) for candidate in found]
    return min(fitted, key=lambda pair: float(((rows - pair[0] * pair[1][:, None]) ** 2).sum()))


def _cut(rows: Rows, candidate: Candidate, capacity: int) -> tuple[Levels, Rows]:
    scale = candidate.scale
    levels = shrink(candidate.levels, capacity, rows / scale[:, None], scale**2)
    return levels, least_squares_scale(rows, levels, scale)
