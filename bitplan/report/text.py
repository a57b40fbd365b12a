"""Numbers for people."""

from __future__ import annotations

from collections.abc import Callable
from math import floor, log10

from bitplan.targets import format_bytes

NOTHING = "–"


def significant(value: float, digits: int = 3) -> str:
    """`digits` significant digits; a power of ten only where there would be many zeros."""
    if not value:
        return "0"
    exponent = floor(log10(abs(float(f"{value:.{digits - 1}e}"))))
    if -5 < exponent < 9:
        return f"{value:,.{max(digits - 1 - exponent, 0)}f}"
    mantissa, _, power = f"{value:.{digits - 1}e}".partition("e")
    return f"{mantissa}e{int(power)}"


def signed_share(value: float) -> str:
    """A change as a percentage with its sign."""
    return f"{100 * value:+.1f} %" if value else "0 %"


STYLES: dict[str, Callable[..., str]] = {
    "size": format_bytes,
    "count": lambda value: f"{value:,.0f}",
    "ms": lambda value: f"{significant(value)} ms",
    "number": significant,
    "bits": lambda value: f"{value:.2f}",
    "share": lambda value: f"{100 * value:.1f} %",
    "percent": lambda value: f"{100 * value:.2f} %",
    "change": signed_share,
    "seconds": lambda value: f"{significant(value)} s",
}
"""By name, how a figure is written."""

BY_UNIT = {"B": "size", "ms": "ms", "%": "percent", "s": "seconds", "weights": "count"}
"""The style of a figure in a unit; `number` for others."""


def written(value: float | None, style: str) -> str:
    """The figure in a style; a dash where it is not known."""
    return NOTHING if value is None else STYLES[style](value)
