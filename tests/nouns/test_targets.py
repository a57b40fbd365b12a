from __future__ import annotations

import pytest

from bitplan.errors import UsageError
from bitplan.targets import Targets, format_bytes, parse_bytes, parse_fraction, parse_seconds


@pytest.mark.parametrize(
    ("text", "size"),
    [("2MB", 2_000_000), ("2MiB", 2_097_152), ("130kB", 130_000), ("1.5 KiB", 1536), ("17", 17), ("3e3b", 3000)],
)
def test_sizes_are_read_in_decimal_and_binary_units(text: str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize(("text", "seconds"), [("20ms", 0.02), ("500us", 5e-4), ("500 µs", 5e-4), ("1.5s", 1.5)])
def test_times_are_read(text: str, seconds: float) -> None:
    assert parse_seconds(text) == pytest.approx(seconds)


@pytest.mark.parametrize(("text", "fraction"), [("1%", 0.01), ("0.02", 0.02), ("100%", 1.0), ("0%", 0.0)])
def test_fractions_are_read(text: str, fraction: float) -> None:
    assert parse_fraction(text, "drop") == pytest.approx(fraction)


@pytest.mark.parametrize("text", ["", "MB", "-2MB", "0MB", "2XB", "two", "nan", "inf", "2MB3", "1e999MB"])
def test_sizes_that_cannot_be_meant_are_refused_with_the_text(text: str) -> None:
    with pytest.raises(UsageError, match="size") as error:
        parse_bytes(text)
    assert repr(text) in str(error.value)


@pytest.mark.parametrize("text", ["20", "20m", "0ms", "ms", "-1s"])
def test_times_need_a_unit_and_a_positive_number(text: str) -> None:
    with pytest.raises(UsageError):
        parse_seconds(text)


@pytest.mark.parametrize("text", ["101%", "2", "-1%", "1kB"])
def test_fractions_above_one_or_with_units_are_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_fraction(text, "max drop")


@pytest.mark.parametrize(
    "limits", [{"latency": 0.0}, {"latency": float("nan")}, {"bytes": 0}, {"loss": -1.0}, {"objective": "speed"}]
)
def test_targets_are_validated(limits: dict) -> None:
    with pytest.raises(UsageError):
        Targets(**limits)


def test_sizes_are_shown_in_decimal_units() -> None:
    assert [format_bytes(n) for n in (12, 1999, 2_000_000)] == ["12 B", "2 kB", "2 MB"]
