"""What a study may turn: names with the values that they can take, and the value that the planner alone would use."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from bitplan.errors import UsageError

Value = str | int | float
Settings = Mapping[str, Value]
"""One value for every knob, by name."""


@dataclass(frozen=True, slots=True)
class Choices:
    """Some values; their order means nothing."""

    values: tuple[Value, ...]

    def suggest(self, trial: Any, name: str) -> Value:
        found: Value = trial.suggest_categorical(name, list(self.values))
        return found

    def including(self, value: Value) -> Choices:
        """With this value too, in front where it is new."""
        return self if value in self.values else Choices((value, *self.values))

    def to_json(self) -> Any:
        return list(self.values)


@dataclass(frozen=True, slots=True)
class Range:
    """Numbers from `low` to `high`, both included; whole ones, or multiples of a step, or on a logarithmic scale."""

    low: float
    high: float
    whole: bool = False
    step: float | None = None
    log: bool = False

    def suggest(self, trial: Any, name: str) -> Value:
        if self.whole:
            step = 1 if self.step is None else int(self.step)
            count: int = trial.suggest_int(name, int(self.low), int(self.high), step=step, log=self.log)
            return count
        number: float = trial.suggest_float(name, self.low, self.high, step=self.step, log=self.log)
        return number

    def including(self, value: Value) -> Range:
        """Wide enough for this value; steps are dropped where it lies between two of them."""
        assert not isinstance(value, str)
        low, high, step = min(self.low, value), max(self.high, value), self.step
        if step is not None and any(
            abs((end - low) / step - round((end - low) / step)) > 1e-9 for end in (value, high)
        ):
            step = None
        return Range(low, high, self.whole, step, self.log)

    def to_json(self) -> Any:
        return {"low": self.low, "high": self.high, "whole": self.whole, "step": self.step, "log": self.log}


@dataclass(frozen=True, slots=True)
class Knob:
    """`planner`: the value that the planner alone uses, which is always one of the domain's."""

    name: str
    domain: Choices | Range
    planner: Value

    @classmethod
    def of(cls, name: str, domain: Choices | Range, planner: Value) -> Knob:
        """The domain is widened by the planner's value where it lacks it. Raises UsageError where it cannot be."""
        if isinstance(domain, Range) and (isinstance(planner, str) or (domain.log and planner <= 0)):
            raise UsageError(
                f"the knob {name} is {planner!r} in the planner's own solution, which no such range can include; list values"
            )
        return cls(name, domain.including(planner), planner)


def suggested(knobs: Iterable[Knob], trial: Any) -> dict[str, Value]:
    """The settings of an Optuna trial. All knobs are asked for, always in the same order, so that samplers that look at
    all parameters together can be used."""
    return {knob.name: knob.domain.suggest(trial, knob.name) for knob in knobs}


def parse_domain(name: str, text: str, read: Callable[[str], Value]) -> Choices | Range:
    """Reads `a,b,c`, or for numbers `low..high`, `low..high:log` and `low..high:step`; `read` reads one value. Raises
    UsageError naming the knob and what is wrong."""
    if ".." in text:
        return _range(name, text, read)
    values = [part.strip() for part in text.split(",") if part.strip()]
    if not values:
        raise UsageError(f"the knob {name} has no values; write for example --knob {name}=A,B")
    return Choices(tuple(dict.fromkeys(read(value) for value in values)))


def _range(name: str, text: str, read: Callable[[str], Value]) -> Range:
    span, colon, how = text.partition(":")
    low, high = (read(part.strip()) for part in span.split("..", 1))
    if isinstance(low, str) or isinstance(high, str):
        raise UsageError(f"the knob {name} takes words, so {text!r} is no range; list its values: --knob {name}=A,B")
    if not low < high:
        raise UsageError(f"the knob {name} goes from {low:g} to {high:g}; the second must be larger")
    whole = isinstance(low, int) and isinstance(high, int)
    if not colon:
        return Range(low, high, whole)
    if how == "log":
        if low <= 0:
            raise UsageError(f"the knob {name} begins at {low:g}; a logarithmic scale begins above 0")
        return Range(low, high, whole, log=True)
    try:
        step = float(how)
    except ValueError:
        step = math.nan
    if not 0 < step <= high - low or (whole and step != int(step)):
        raise UsageError(f"the knob {name}: {how!r} is no step from {low:g} to {high:g}; write a number or log")
    return Range(low, low + math.floor((high - low) / step + 1e-9) * step, whole, step)
