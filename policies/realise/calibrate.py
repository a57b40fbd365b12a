"""The u8 range of every value, from the full-precision network's values on calibration images."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import gcd

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bitplan.errors import DataError
from bitplan.formats import Range
from bitplan.network import SAME_RANGE, Input
from bitplan.policies.realise.front import Images, count_images, default_batch, slices, take
from bitplan.simulate import Simulator

BINS = 4096
SAMPLES = 1 << 23
"""Numbers of each value that go into its histogram; smallest and largest are taken over all."""

SHRINK = np.geomspace(1.0, 0.05, 160)
"""Candidate scales as fractions of the one that clips nothing."""


def calibrate(simulator: Simulator, images: Images, *, batch: int | None = None) -> dict[str, Range]:
    """A range for every value, from raw images [N, C, H, W].

    Each range minimises the squared error of rounding and clipping (over scale and zero point). Zero is always
    exactly representable, with zero point 0 where no value is negative. A network input of bytes covers all that
    0..255 can become in preprocessing, any other input all that occurs. Operations of SAME_RANGE share their input's
    range. Raises DataError, naming the value, where one is not finite.
    """
    batch = batch or default_batch(simulator.network)
    parts = [take(images, part) for part in slices(0, count_images(images), batch)]
    spreads = {node.name: Spread() for node in simulator.network if not isinstance(node.op, SAME_RANGE)}
    for part in parts:
        for name, value in simulator.values(part, keep=spreads).items():
            spreads[name].extend(value, name)
    for part in parts:
        for name, value in simulator.values(part, keep=spreads).items():
            spreads[name].fill(value)
    ranges: dict[str, Range] = {}
    for node in simulator.network:
        if isinstance(node.op, SAME_RANGE):
            ranges[node.name] = ranges[node.inputs[0]]
        elif isinstance(node.op, Input):
            ranges[node.name] = _whole(*_input_bounds(simulator, images, node.name, spreads[node.name]))
        else:
            ranges[node.name] = best_range(spreads[node.name])
    return ranges


@dataclass
class Spread:
    """Where the numbers of one value lie: bounds first (`extend`), then a histogram between them (`fill`)."""

    low: float = 0.0
    high: float = 0.0
    total: int = 0
    counts: NDArray[np.float64] = field(default_factory=lambda: np.zeros(BINS))
    zeros: float = 0.0
    """Numbers that are exactly zero: they cost nothing, as zero is always exact."""

    def extend(self, value: Tensor, name: str) -> None:
        low, high = (float(x) for x in torch.aminmax(value))
        if not (np.isfinite(low) and np.isfinite(high)):
            raise DataError(
                f"value {name!r} is not finite on the calibration images ({low} to {high}); check weights and images"
            )
        self.low, self.high = min(self.low, low), max(self.high, high)
        self.total += value.numel()

    def fill(self, value: Tensor) -> None:
        sample = _sample(value, max(1, self.total // SAMPLES))
        if self.high > self.low:
            self.counts += torch.histc(sample, BINS, self.low, self.high).double().numpy()
            self.zeros += float((sample == 0).sum())

    @property
    def centres(self) -> NDArray[np.float64]:
        return self.low + (np.arange(BINS) + 0.5) * (self.high - self.low) / BINS


def best_range(spread: Spread) -> Range:
    """The scale and zero point of least squared error: step^2 / 12 for every nonzero number inside, the squared
    distance to the nearer end for every number outside."""
    if spread.high <= spread.low:
        return Range(1.0, 0)
    widest = _whole(spread.low, spread.high).scale
    scales = widest * SHRINK[:, None]
    if spread.low >= 0:
        zero_points = np.array([[0]])
    elif spread.high <= 0:
        zero_points = np.array([[255]])
    else:
        zero_points = np.arange(256)[None, :]
    low, high = -zero_points * scales, (255 - zero_points) * scales
    rounding = (spread.counts.sum() - spread.zeros) * scales**2 / 12
    above = _clipping(spread.centres, spread.counts, high)
    below = _clipping(-spread.centres[::-1], spread.counts[::-1], -low)
    error = rounding + above + below
    row, column = np.unravel_index(np.argmin(error), error.shape)
    return Range(float(np.float32(scales[row, 0])), int(zero_points[0, column]))


def _clipping(
    centres: NDArray[np.float64], counts: NDArray[np.float64], end: NDArray[np.float64]
) -> NDArray[np.float64]:
    """sum of count (x - end)^2 over x > end, for each end; from the moments of all bins above it."""

    def above(moment: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.append(np.cumsum(moment[::-1])[::-1], 0.0)

    first = np.searchsorted(centres, end, side="right")
    zeroth, one, two = (above(counts * centres**power)[first] for power in (0, 1, 2))
    return np.maximum(two - 2 * end * one + end**2 * zeroth, 0.0)


def _whole(low: float, high: float) -> Range:
    """The finest range that clips nothing between low and high and has zero on its grid."""
    low, high = min(low, 0.0), max(high, 0.0)
    if low == high:
        return Range(1.0, 0)
    scale = (high - low) / 255
    zero_point = round(-low / scale)
    # Rounding the zero point moves one end inwards by up to half a step: widen until both ends are inside.
    if zero_point > 0:
        scale = max(scale, -low / zero_point)
    if zero_point < 255:
        scale = max(scale, high / (255 - zero_point))
    return Range(float(np.float32(scale)), zero_point)


def _input_bounds(simulator: Simulator, images: Images, name: str, seen: Spread) -> tuple[float, float]:
    array = images if isinstance(images, np.ndarray) else images[name]
    if array.dtype != np.uint8:
        return seen.low, seen.high
    ends = [simulator.preprocess(np.full((1, *array.shape[1:]), end, np.uint8)) for end in (0, 255)]
    return min(float(end.min()) for end in ends), max(float(end.max()) for end in ends)


def _sample(value: Tensor, step: int) -> Tensor:
    """About every step-th number in the order of memory, with a step that visits all channels in turn."""
    flat = value.permute(0, 2, 3, 1).reshape(-1) if value.ndim == 4 else value.reshape(-1)
    channels = value.shape[1] if value.ndim == 4 else value.shape[-1]
    while gcd(step, channels) > 1:
        step += 1
    return flat[::step]
