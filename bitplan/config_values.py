"""Readers of single configuration values: (name, value) to the checked value, or UsageError naming both."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from bitplan.errors import UsageError
from bitplan.suggest import suggestion
from bitplan.targets import parse_bytes, parse_fraction, parse_seconds
from bitplan.user_code import FUNCTION_SPEC

LOSS_METRICS = ("kl", "task", "squared_error")
BACKENDS = ("loky", "ray", "dask")
LONG = "it must be a time with its unit, such as 90s, 30min or 2h"


def _refuse(name: str, value: object, rule: str) -> NoReturn:
    raise UsageError(f"{name} is {reprlib.repr(value)} ({type(value).__name__}); {rule}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def text(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        _refuse(name, value, "it must be a text")
    return value.strip()


def path(name: str, value: Any) -> Path:
    if not isinstance(value, str | Path) or not str(value):
        _refuse(name, value, "it must be a path")
    return Path(value)


def function_spec(name: str, value: Any) -> str:
    if not FUNCTION_SPEC.fullmatch(text(name, value)):
        _refuse(name, value, "it must look like 'pkg.mod:function'")
    return text(name, value)


def texts(name: str, value: Any) -> tuple[str, ...]:
    """A list of texts, or one text with commas between them."""
    if isinstance(value, str):
        value = [part for part in value.split(",") if part.strip()]
    if not isinstance(value, list | tuple):
        _refuse(name, value, "it must be a list of texts")
    return tuple(part for item in value for part in ([text(name, item)] if "," not in str(item) else texts(name, item)))


def numbers(name: str, value: Any) -> tuple[float, ...]:
    """A list of finite numbers, one number, or a text with commas between them."""
    rule = "it must be a number per channel, for example 123.7,116.3,103.5"
    if isinstance(value, str):
        value = value.split(",")
    elif not isinstance(value, list | tuple):
        value = [value]
    found = []
    for item in value:
        if not (_is_number(item) or isinstance(item, str)):
            _refuse(name, item, rule)
        try:
            found.append(float(item))
        except ValueError:
            _refuse(name, item, rule)
    if not all(math.isfinite(number) for number in found):
        _refuse(name, value, rule)
    return tuple(found)


def whole(least: int) -> Callable[[str, Any], int]:
    """A reader of whole numbers from `least`."""

    def read(name: str, value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            _refuse(name, value, f"it must be a whole number of at least {least}")
        return value

    return read


def non_negative_number(name: str, value: Any) -> float:
    if not _is_number(value) or not (0 <= value < math.inf):
        _refuse(name, value, "it must be a finite number of at least 0")
    return float(value)


def seconds(name: str, value: Any) -> float:
    """A number of seconds, or a text with a unit."""
    found = parse_seconds(value, name) if isinstance(value, str) else value
    if not _is_number(found) or not (0 < found < math.inf):
        _refuse(name, value, "it must be a number of seconds above 0, or a text such as 90s")
    return float(found)


def long_seconds(name: str, value: Any) -> float:
    """A number of seconds, or a text with a unit from hours down: 2h, 60min, 90s."""
    if not isinstance(value, str):
        return seconds(name, value)
    for unit, factor in (("min", 60), ("h", 3600)):
        number = value.strip().removesuffix(unit)
        if number != value.strip():
            try:
                return seconds(name, factor * float(number))
            except ValueError:
                _refuse(name, value, LONG)
    try:
        return seconds(name, value)
    except UsageError:
        _refuse(name, value, LONG)


def epochs(name: str, value: Any) -> int:
    """A number of epochs: `30epochs` or 30; 0 for none."""
    words = str(value).strip().removesuffix("s").removesuffix("epoch").strip()
    if isinstance(value, bool) or not words.isdecimal():
        _refuse(name, value, "it must be a number of epochs such as 30epochs")
    return int(words)


def choice(names: Sequence[str]) -> Callable[[str, Any], str]:
    """A reader of one of some names."""

    def read(name: str, value: Any) -> str:
        if value not in names:
            meant = suggestion(str(value), names)
            hint = f"; {meant}" if meant.endswith("?") else ""
            _refuse(name, value, f"it must be one of {', '.join(names)}{hint}")
        return str(value)

    return read


def _quantity(check: Callable[[str, str], object], rule: str) -> Callable[[str, Any], str]:
    """A reader of quantities that are kept as written, once `check` (text, name) has accepted them."""

    def read(name: str, value: Any) -> str:
        if not (_is_number(value) or isinstance(value, str)):
            _refuse(name, value, rule)
        check(str(value), name)
        return str(value).strip()

    return read


def parse_full_precision_weights(share: str | None, name: str = "full_precision_weights") -> float | None:
    """`2%` or `0.02` is a fraction of all weights (below 1), `5000` a number of weights; None for no limit."""
    if share is None:
        return None
    if share.strip() in ("0", "0.0", "0%"):
        return 0.0
    if share.strip().endswith("%"):
        fraction = parse_fraction(share, name)
        if fraction == 1:
            raise UsageError(f"{name} {share!r} is no limit; leave it out")
        return fraction
    try:
        value = float(share)
    except ValueError:
        value = math.nan
    if not (0 < value < math.inf) or (value >= 1 and value != int(value)):
        raise UsageError(f"{name} {share!r} must be a percentage such as 2%, or a whole number of weights such as 5000")
    return value


latency_text = _quantity(parse_seconds, "it must be a time such as 20ms")
size_text = _quantity(parse_bytes, "it must be a size such as 2MB")
fraction_text = _quantity(parse_fraction, "it must be a percentage such as 1%")
share_text = _quantity(parse_full_precision_weights, "it must be a percentage such as 2% or a number of weights")
