"""What any code of a given rate can do at best with levels -1, 0 and 1 on memoryless weights (Blahut, IEEE Trans. IT
18, 1972), from the weights' own distribution."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def quantised_source(weights: NDArray[np.float32], points: int = 400) -> Array:
    """Means of equally many sorted |w| each, with unit mean square; the signs are symmetric."""
    ordered = np.sort(np.abs(weights.ravel()).astype(np.float64))
    ordered = ordered[len(ordered) % points :]
    means = ordered.reshape(points, -1).mean(1)
    return np.asarray(means / np.sqrt((means**2).mean()))


def blahut(costs: Array, slope: float, rounds: int = 300) -> tuple[float, Array]:
    """Rate in bits and the channel [points, symbols] that minimise rate + slope x cost for equally likely points."""
    gain = np.exp(-slope * (costs - costs.min(1, keepdims=True)))
    output = np.full(costs.shape[1], 1 / costs.shape[1])
    for _ in range(rounds):
        channel = gain * output
        channel /= channel.sum(1, keepdims=True)
        output = channel.mean(0)
    ratio = channel / np.maximum(output, 1e-300)
    return float((channel * np.log2(np.maximum(ratio, 1e-300))).sum(1).mean()), channel


def channel_of_rate(costs: Array, rate: float) -> Array:
    """The channel of the given rate, found by bisection of the slope."""
    low, high = 0.0, 60.0
    for _ in range(24):
        slope = (low + high) / 2
        found, channel = blahut(costs, slope)
        low, high = (slope, high) if found < rate else (low, slope)
    return channel


def both_signs(positive: Array) -> Array:
    """Costs [2 points, 3] of weights of both signs from those of positive ones, levels in the order -1, 0, 1."""
    return np.concatenate([positive, positive[:, ::-1]])


def least_error(magnitudes: Array, rate: float) -> float:
    """Least relative squared error of w by scale x level, over all scales."""
    best = 1.0
    for scale in np.arange(0.8, 3.6, 0.2):
        costs = (magnitudes[:, None] - scale * np.array([-1, 0, 1])) ** 2
        channel = channel_of_rate(both_signs(costs), rate)
        best = min(best, float((channel * both_signs(costs)).sum(1).mean()))
    return best


def most_kept(magnitudes: Array, rate: float, density: float) -> float:
    """Most energy of weights with the right sign, when `density` of them are kept."""
    energy = magnitudes**2
    low, high = -3.0, 6.0
    for _ in range(12):
        price = (low + high) / 2
        costs = np.stack([np.full(len(energy), price), np.zeros(len(energy)), price - energy], 1)
        channel = channel_of_rate(both_signs(costs), rate)
        low, high = (price, high) if float(1 - channel[:, 1].mean()) > density else (low, price)
    points = len(energy)
    return float((channel[:points, 2] @ energy + channel[points:, 0] @ energy) / (2 * points))
