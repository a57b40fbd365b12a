"""Axes: where a value lies, and which values are marked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil, expm1, floor, log, log1p, log10

Place = Callable[[float], float]
"""From a value to its pixel."""

NEAR = 100.0
"""The loss axis separates losses down to about the largest one divided by this."""


def logarithmic(low: float, high: float, start: float, end: float) -> Place:
    """low lies at `start`, high at `end`; both above zero."""
    span = log(high / low) or 1.0
    return lambda value: start + (end - start) * log(value / low) / span


def linear(low: float, high: float, start: float, end: float) -> Place:
    span = (high - low) or 1.0
    return lambda value: start + (end - start) * (value - low) / span


def rising(largest: float, start: float, end: float) -> Place:
    """0 lies at `start`, the largest at `end`; small values stay apart, and zero has a place."""
    top = log1p(NEAR)
    return lambda value: start + (end - start) * log1p(NEAR * max(value, 0.0) / largest) / top


def rising_marks(largest: float, count: int = 5) -> list[float]:
    """Values with few digits, evenly apart on a rising axis."""
    raw = [expm1(log1p(NEAR) * i / count) * largest / NEAR for i in range(1, count + 1)]
    return [0.0, *dict.fromkeys(_round(value) for value in raw if _round(value) <= 1.02 * largest)]


def log_marks(low: float, high: float) -> list[float]:
    """Round values between both on a logarithmic axis: 1, 2, 5 of each power of ten, more where that is too few."""
    for steps in ((1,), (1, 2, 5), (1, 1.5, 2, 3, 5, 7)):
        found = [
            step * 10.0**power
            for power in range(floor(log10(low)), ceil(log10(high)) + 1)
            for step in steps
            if low * 0.999 <= step * 10.0**power <= high * 1.001
        ]
        if len(found) >= 3:
            return found
    return linear_marks(low, high)


def linear_marks(low: float, high: float, count: int = 4) -> list[float]:
    """Round values between both on a linear axis."""
    step = _round((high - low) / count) or 1.0
    first = ceil(low / step - 1e-9)
    return [step * i for i in range(first, floor(high / step + 1e-9) + 1)]


def padded(values: Sequence[float], share: float = 0.06) -> tuple[float, float]:
    """The range of positive values with some room on a logarithmic axis."""
    low, high = min(values), max(values)
    room = (high / low) ** share if high > low else 1.5
    return low / room, high * room


def mark_texts(values: Sequence[float]) -> list[str]:
    """The values with as many decimals as the one that needs most."""
    needed = max((len(f"{value:.4g}".partition(".")[2]) for value in values if "e" not in f"{value:.4g}"), default=0)
    return [f"{value:.4g}" if "e" in f"{value:.4g}" else f"{value:,.{needed}f}" for value in values]


def spread(values: Sequence[float], place: Place, apart: float) -> list[float]:
    """Those of rising values whose places are `apart` pixels or more from the one before."""
    kept: list[float] = []
    for value in values:
        if not kept or abs(place(value) - place(kept[-1])) >= apart:
            kept.append(value)
    return kept


def _round(value: float) -> float:
    """The nearest of 1, 2, 5 times a power of ten."""
    if value <= 0:
        return 0.0
    power = 10.0 ** floor(log10(value))
    return min((1, 2, 5, 10), key=lambda step: abs(log(step * power / value))) * power
