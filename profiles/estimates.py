"""Latencies of steps that were not timed, from those of the profile's own that were.

Two models per family of steps (the code that runs them, the format they read, threads and batch). The first says what a
shape costs, all variants taken together: a sum of amounts of work at non-negative rates (`cost_terms.py`), and a Gaussian
process over the sizes for what that leaves over. The second says by what factor one variant, writing certain formats,
differs from that: a Gaussian process too. Splitting them lets all variants tell about a shape, and a step whose shape was
timed under other variants is known nearly as well as if it had been timed.

Error bars are those of leaving out: every shape of the profile is predicted from the others, and an estimate gets the
80 % interval of these errors, wider where shapes lie further from all that were timed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import exp
from typing import TypeVar

import numpy as np

from bitplan.errors import UsageError
from bitplan.profiles.cost_terms import coordinates, family, terms
from bitplan.profiles.device import DeviceProfile, Latency
from bitplan.profiles.regression import Floats, Process, Rates
from bitplan.profiles.step_shape import StepShape, step_shape
from bitplan.profiles.steps import StepKey

FEWEST_SHAPES = 8
"""Shapes that a family needs for an estimate."""
FEWEST_OF_VARIANT = 4
"""Of them, those that a variant needs."""
SWEEPS = 4
"""Of alternately averaging over shapes and over variants."""
INSIDE = 0.8
"""Share of the errors within the error bars."""
OPERATIONS = "operations"
"""The family of last resort of steps without weights: all of them."""

Family = tuple[str, str, str, int, int]
Name = TypeVar("Name", bound=Hashable)
Way = tuple[str, str]
"""A variant and the formats written; without formats: whatever is written."""


@dataclass(frozen=True)
class LeftOut:
    """What leaving out one shape after another came to: relative errors (estimate / timed - 1) [n]."""

    errors: Floats

    def within(self, share: float) -> float:
        """The share of the errors that are at most `share`."""
        return float(np.mean(np.abs(self.errors) <= share)) if len(self.errors) else float("nan")

    def quantile(self, share: float) -> float:
        """The absolute error that `share` of them do not exceed."""
        return float(np.quantile(np.abs(self.errors), share)) if len(self.errors) else float("nan")


class Estimator:
    """Estimates of one device, fitted when they are asked for; see the module."""

    def __init__(self, profile: DeviceProfile) -> None:
        self._rows: dict[Family, dict[StepKey, float]] = defaultdict(dict)
        for key, latency in profile.timed.items():
            if latency.median > 0:
                for name in _families(key):
                    self._rows[name][key] = latency.median
        self._models: dict[Family, _FamilyModel | None] = {}

    def estimate(self, key: StepKey) -> Latency | None:
        """The latency that is to be expected, marked as an estimate; None where too little was timed to tell."""
        for name in _families(key):
            model = self._model(name)
            if model and (found := model.estimate(key)):
                return found
        return None

    def left_out(self, keys: Iterable[StepKey]) -> LeftOut:
        """The errors of estimating these timed steps without their shapes."""
        errors = []
        for key in keys:
            model = self._model(_families(key)[0])
            if model and key in model.left_out:
                errors.append(np.expm1(model.left_out[key][0]))
        return LeftOut(np.array(errors))

    def _model(self, name: Family) -> _FamilyModel | None:
        if name not in self._models:
            rows = self._rows.get(name, {})
            enough = len({key.signature for key in rows}) >= FEWEST_SHAPES
            self._models[name] = _FamilyModel(rows) if enough else None
        return self._models[name]


def completed(profile: DeviceProfile, keys: Iterable[StepKey]) -> DeviceProfile:
    """The profile with an estimate for every key that it has no entry for. Raises UsageError, naming one of the steps, where
    too little was timed to estimate it."""
    missing = sorted(profile.missing(keys))
    if not missing:
        return profile
    estimator, added = Estimator(profile), {}
    for key in missing:
        found = estimator.estimate(key)
        if found is None:
            raise UsageError(
                f"the device profile has no latency for the step {key}, and timed too few steps like it for an estimate; "
                "time this network's with `optimize profile device NETWORK`, or typical ones with `optimize profile device`"
            )
        added[key] = found
    return DeviceProfile(profile.fingerprint, profile.anchor, {**profile.entries, **added}, profile.recorded)


class _FamilyModel:
    """What shapes cost in one family, and what factor each variant adds."""

    def __init__(self, rows: Mapping[StepKey, float]) -> None:
        self.logarithms = {key: float(np.log(seconds)) for key, seconds in rows.items()}
        self.signatures = sorted({key.signature for key in rows})
        shapes = [step_shape(signature) for signature in self.signatures]
        self.levels, self.factors = _split(self.logarithms)
        level = np.array([self.levels[signature] for signature in self.signatures])
        amounts = _amounts(shapes)
        self.rates = Rates.fitted(amounts, np.exp(level))
        self.process = Process.fitted(_places(shapes), level - self.rates.logarithms(amounts))
        self.variants: dict[Way, tuple[list[StepKey], Process]] = {}
        by_way: dict[Way, list[StepKey]] = defaultdict(list)
        for key in rows:
            by_way[key.variant, key.output].append(key)
            by_way[key.variant, ""].append(key)
        for way, keys in by_way.items():
            if len({key.signature for key in keys}) >= FEWEST_OF_VARIANT:
                places = _places([step_shape(key.signature) for key in keys])
                values = np.array([self.logarithms[key] - self.levels[key.signature] for key in keys])
                self.variants[way] = keys, Process.fitted(places, values)

    def estimate(self, key: StepKey) -> Latency | None:
        way = next((w for w in ((key.variant, key.output), (key.variant, "")) if w in self.variants), None)
        if way is None:
            return None
        place = _places([step_shape(key.signature)])
        if key.signature in self.levels:  # timed under other variants
            level, spread = self.levels[key.signature], self.process.noise**0.5
        else:
            mean, deviation = self.process.predict(place)
            level = float(mean[0] + self.rates.logarithms(_amounts([step_shape(key.signature)]))[0])
            spread = float(deviation[0])
        factor, own = self.variants[way][1].predict(place)
        median, bar = exp(level + float(factor[0])), exp(self.widening * float(np.hypot(spread, own[0])))
        return Latency(median, median / bar, median * bar, len(self.logarithms), estimated=True)

    @cached_property
    def left_out(self) -> dict[StepKey, tuple[float, float]]:
        """By step, of estimating it without its shape: the error of the logarithm, and the deviation that was expected."""
        errors, deviations = self.process.left_out
        number = {signature: i for i, signature in enumerate(self.signatures)}
        found = {}
        for (_, output), (keys, process) in self.variants.items():
            if output:
                for key, error, deviation in zip(keys, *process.left_out, strict=True):
                    i = number[key.signature]
                    found[key] = float(errors[i] + error), float(np.hypot(deviations[i], deviation))
        return found

    @cached_property
    def widening(self) -> float:
        """Deviations that INSIDE of the errors stay within; of so few variants that none can be left out, as if normal."""
        ratios = [abs(error) / deviation for error, deviation in self.left_out.values()]
        return float(np.quantile(ratios, INSIDE)) if ratios else 1.2816


def _families(key: StepKey) -> list[Family]:
    """The families that can tell what a step takes, the nearest first."""
    shape = step_shape(key.signature)
    if shape.is_layer:
        _, _, read = key.variant.partition("@")
        return [(family(shape), key.kernel, read.partition(":")[0], key.threads, key.batch)]
    return [(name, "", "", key.threads, key.batch) for name in (family(shape), OPERATIONS)]


def _split(logarithms: Mapping[StepKey, float]) -> tuple[dict[str, float], dict[Way, float]]:
    """Logarithms of times as a level of each shape plus a factor of each way, by alternating averages."""
    factors: dict[Way, float] = defaultdict(float)
    levels: dict[str, float] = {}
    for _ in range(SWEEPS):
        levels = _means((key.signature, value - factors[key.variant, key.output]) for key, value in logarithms.items())
        found = _means(((key.variant, key.output), value - levels[key.signature]) for key, value in logarithms.items())
        factors = defaultdict(float, found)
    return levels, factors


def _means(pairs: Iterable[tuple[Name, float]]) -> dict[Name, float]:
    gathered: dict[Name, list[float]] = defaultdict(list)
    for name, value in pairs:
        gathered[name].append(value)
    return {name: float(np.median(values)) for name, values in gathered.items()}


def _amounts(shapes: Sequence[StepShape]) -> Floats:
    return np.array([terms(shape) for shape in shapes], np.float64)


def _places(shapes: Sequence[StepShape]) -> Floats:
    return np.array([coordinates(shape) for shape in shapes], np.float64)
