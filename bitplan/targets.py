"""What the user asks for: limits and one objective, with the units people write."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, fields

from bitplan.errors import UsageError

BYTE_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
SECOND_UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6}
OBJECTIVES = ("loss", "bytes", "latency", "memory")


def _number_and_unit(text: str, what: str, example: str, *, zero_allowed: bool = False) -> tuple[float, str]:
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+(?:e[+-]?[0-9]+)?)\s*([a-zµ%]*)\s*", text.lower())
    if not match:
        raise UsageError(f"{what} {text!r} is not a number with a unit; write for example {example}")
    value = float(match[1])
    if not (value > 0 or (zero_allowed and value == 0)) or not math.isfinite(value):
        raise UsageError(f"{what} {text!r} must be {'at least' if zero_allowed else 'above'} zero, and finite")
    return value, match[2]


def parse_bytes(text: str, what: str = "size") -> int:
    """Reads `2MB` (10^6), `2MiB` (2^20), `130kB` or a bare number of bytes. Raises UsageError."""
    value, unit = _number_and_unit(text, what, "2MB or 512KiB")
    if unit not in BYTE_UNITS:
        raise UsageError(f"{what} {text!r}: unknown unit {unit!r}; use B, kB, MB, KiB or MiB")
    return int(value * BYTE_UNITS[unit])


def parse_seconds(text: str, what: str = "latency") -> float:
    """Reads `20ms`, `500us` or `0.5s` into seconds. Raises UsageError."""
    value, unit = _number_and_unit(text, what, "20ms")
    if unit not in SECOND_UNITS:
        raise UsageError(f"{what} {text!r} needs a unit: s, ms or us; write for example 20ms")
    return value * SECOND_UNITS[unit]


def parse_fraction(text: str, what: str) -> float:
    """Reads `1%` or `0.01` into 0.01. Raises UsageError."""
    value, unit = _number_and_unit(text, what, "1%", zero_allowed=True)
    value = value / 100 if unit == "%" else value
    if unit not in ("", "%") or value > 1:
        raise UsageError(f"{what} {text!r} must be a percentage up to 100% or a fraction up to 1")
    return value


def format_bytes(size: float) -> str:
    """A size for people: decimal units, three digits."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= factor:
            return f"{size / factor:.3g} {unit}" if size < 1000 * factor else f"{size / factor:,.0f} {unit}"
    return f"{size:.0f} B"


@dataclass(frozen=True, slots=True)
class Targets:
    """Limits (None: no limit) and the objective that is minimised under them.

    latency: seconds, median of one inference; bytes: of the artifact's file; memory: packed weights + arena, bytes;
    loss: predicted loss increase; max_drop: top-1 points as a fraction of one; full_precision_weights: weights kept
    at 16 or 32 bits, as a number (>= 1) or a fraction of all weights (< 1).
    """

    latency: float | None = None
    bytes: int | None = None
    memory: int | None = None
    loss: float | None = None
    max_drop: float | None = None
    full_precision_weights: float | None = None
    objective: str = "loss"

    def __post_init__(self) -> None:
        if self.objective not in OBJECTIVES:
            raise UsageError(f"objective {self.objective!r} is not one of {', '.join(OBJECTIVES)}")
        for f in fields(self):
            value = getattr(self, f.name)
            if f.name == "objective" or value is None:
                continue
            if not (value >= 0 and math.isfinite(value)) or (value == 0 and f.name in ("latency", "bytes", "memory")):
                raise UsageError(f"target {f.name} is {value}; it must be a finite number above zero")
