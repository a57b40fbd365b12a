"""The ranges of every value, from the full-precision network's values on calibration images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import gcd

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bitplan.errors import DataError
from bitplan.formats import Range, top_code
from bitplan.network import SAME_RANGE, Input
from bitplan.policies.realise.front import Images, count_images, default_batch, slices, take
from bitplan.simulate import Simulator
from bitplan.variant import U1, U8

Floats = NDArray[np.float64]

BINS = 4096
SAMPLES = 1 << 23
"""Numbers of each value that go into its histogram; smallest and largest are taken over all."""

SHRINK = np.geomspace(1.0, 0.05, 160)
"""Candidate scales in u8 as fractions of the one that clips nothing."""

LOW_SHRINK = np.geomspace(1.0, 0.01, 232)
"""The same below u8, where the tails of a value count for less: steps of 2 %."""


def calibrate(
    simulator: Simulator, images: Images, formats: Sequence[str] = (U8,), *, batch: int | None = None
) -> dict[str, dict[str, Range]]:
    """For every value a range in each of `formats` (of codes), from raw images [N, C, H, W].

    Each range minimises the squared error of rounding and clipping (over scale and zero point). Zero is always
    exactly representable, with zero point 0 where no value is negative; only u1 may have the levels -scale / 2 and
    scale / 2 for a value with both signs. In u8, a network input of bytes covers all that 0..255 can become in
    preprocessing, any other input all that occurs, and operations of SAME_RANGE share their input's range.
    Raises DataError, naming the value, where one is not finite.
    """
    batch = batch or default_batch(simulator.network)
    parts = [take(images, part) for part in slices(0, count_images(images), batch)]
    only_u8 = set(formats) <= {U8}
    spreads = {
        node.name: Spread()
        for node in simulator.network
        if formats and not (only_u8 and isinstance(node.op, SAME_RANGE))
    }
    for part in parts:
        for name, value in simulator.values(part, keep=spreads).items():
            spreads[name].extend(value, name)
    for part in parts:
        for name, value in simulator.values(part, keep=spreads).items():
            spreads[name].fill(value)
    ranges: dict[str, dict[str, Range]] = {}
    for node in simulator.network:
        found = ranges[node.name] = {}
        for form in formats:
            if form == U8 and isinstance(node.op, SAME_RANGE):
                found[form] = ranges[node.inputs[0]][form]
            elif form == U8 and isinstance(node.op, Input):
                found[form] = _whole(*_input_bounds(simulator, images, node.name, spreads[node.name]))
            else:
                found[form] = best_range(spreads[node.name], form)
    return ranges


@dataclass
class Spread:
    """Where the numbers of one value lie: bounds first (`extend`), then a histogram between them (`fill`)."""

    low: float = 0.0
    high: float = 0.0
    total: int = 0
    counts: Floats = field(default_factory=lambda: np.zeros(BINS))
    """Of the numbers that are not exactly zero."""
    zeros: float = 0.0
    """Numbers that are exactly zero: they cost nothing where zero is exact."""

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
            nonzero = sample[sample != 0]
            self.counts += torch.histc(nonzero, BINS, self.low, self.high).double().numpy()
            self.zeros += len(sample) - len(nonzero)

    @property
    def centres(self) -> Floats:
        return self.low + (np.arange(BINS) + 0.5) * (self.high - self.low) / BINS


def best_range(spread: Spread, form: str) -> Range:
    """The scale and zero point of least squared error in a format of codes."""
    if spread.high <= spread.low:
        return Range(1.0, 0)
    top = top_code(form)
    # In u1 the two levels lie inside: with a zero point of 0.5, up to two magnitudes apart.
    widest = 2 * max(spread.high, -spread.low) if form == U1 else _whole(spread.low, spread.high, top).scale
    scales = widest * (SHRINK if form == U8 else LOW_SHRINK)[:, None]
    if spread.low >= 0:
        zero_points = np.array([[0]])
    elif spread.high <= 0:
        zero_points = np.array([[top]])
    else:
        zero_points = np.array([[0, 0.5, 1]]) if form == U1 else np.arange(top + 1)[None, :]
    errors = _error_of_bytes if form == U8 else _error_of_codes
    error = errors(spread, scales, zero_points, top)
    row, column = np.unravel_index(np.argmin(error), error.shape)
    return Range(float(np.float32(scales[row, 0])), zero_points[0, column].item())


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


def _whole(low: float, high: float, top: int = 255) -> Range:
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
