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
        wanted, errors = frozenset(keys), []
        for name in {_families(key)[0] for key in wanted}:
            model = self._model(name)
            ways = [way for way in model.by_way if way[1]] if model else []
            for factor in (model.factor(way) for way in ways if model):
                if factor:
                    errors += [np.expm1(e) for key, e in zip(factor.keys, factor.errors, strict=True) if key in wanted]
        return LeftOut(np.array(errors))

    def _model(self, name: Family) -> _FamilyModel | None:
        if name not in self._models:
            rows = self._rows.get(name, {})
            enough = len({key.signature for key in rows}) >= FEWEST_SHAPES
            self._models[name] = _FamilyModel(rows) if enough else None
        return self._models[name]


def completed(profile: DeviceProfile, keys: Iterable[StepKey]) -> DeviceProfile:
    """The profile with an estimate for every key that was not timed; where there can be none, the one that it holds stays. Raises UsageError, naming one of the steps, where
    too little was timed to estimate it."""
    missing = sorted(profile.missing(keys))
    if not missing:
        return profile
    estimator, added = Estimator(profile), {}
    for key in missing:
        found = estimator.estimate(key)
        if found is None and key in profile.entries:
            continue
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
        self.numbers = {signature: number for number, signature in enumerate(self.signatures)}
        self.levels = _levels(self.logarithms)
        level = np.array([self.levels[signature] for signature in self.signatures])
        amounts = _amounts(shapes)
        self.rates = Rates.fitted(amounts, np.exp(level))
        self.process = Process.fitted(_places(shapes), level - self.rates.logarithms(amounts))
        self.by_way: dict[Way, list[StepKey]] = defaultdict(list)
        for key in rows:
            self.by_way[key.variant, key.output].append(key)
            self.by_way[key.variant, ""].append(key)
        self._factors: dict[Way, _Factor | None] = {}

    def estimate(self, key: StepKey) -> Latency | None:
        factor = self.factor((key.variant, key.output)) or self.factor((key.variant, ""))
        if factor is None:
            return None
        shape = step_shape(key.signature)
        place = _places([shape])
        if key.signature in self.levels:  # timed under other variants
            level, spread = self.levels[key.signature], self.process.noise**0.5
        else:
            mean, deviation = self.process.predict(place)
            level, spread = float(mean[0] + self.rates.logarithms(_amounts([shape]))[0]), float(deviation[0])
        more, own = factor.process.predict(place)
        median, bar = exp(level + float(more[0])), exp(factor.widening * float(np.hypot(spread, own[0])))
        return Latency(median, median / bar, median * bar, len(factor.keys), estimated=True)

    def factor(self, way: Way) -> _Factor | None:
        """What a way adds to the level of a shape; None where it was timed on too few."""
        if way not in self._factors:
            keys = self.by_way.get(way, [])
            enough = len({key.signature for key in keys}) >= FEWEST_OF_VARIANT
            self._factors[way] = self._fitted(keys) if enough else None
        return self._factors[way]

    def _fitted(self, keys: Sequence[StepKey]) -> _Factor:
        values = np.array([self.logarithms[key] - self.levels[key.signature] for key in keys])
        process = Process.fitted(_places([step_shape(key.signature) for key in keys]), values, roughly=True)
        numbers = [self.numbers[key.signature] for key in keys]
        levels, factors = self.process.left_out, process.left_out
        return _Factor(keys, process, levels[0][numbers] + factors[0], np.hypot(levels[1][numbers], factors[1]))


@dataclass(frozen=True)
class _Factor:
    """The logarithm of the factor of one way; and, of leaving out the shape of each of its steps, the errors of the
    logarithms [n] and the deviations that were expected [n]."""

    keys: Sequence[StepKey]
    process: Process
    errors: Floats
    deviations: Floats

    @cached_property
    def widening(self) -> float:
        """Deviations that INSIDE of the errors stay within."""
        return float(np.quantile(np.abs(self.errors) / self.deviations, INSIDE))


def _families(key: StepKey) -> list[Family]:
    """The families that can tell what a step takes, the nearest first."""
    shape = step_shape(key.signature)
    if shape.is_layer:
        _, _, read = key.variant.partition("@")
        return [(family(shape), key.kernel, read.partition(":")[0], key.threads, key.batch)]
    return [(name, "", "", key.threads, key.batch) for name in (family(shape), OPERATIONS)]


def _levels(logarithms: Mapping[StepKey, float]) -> dict[str, float]:
    """By shape, the level of the logarithms of its times, that of a typical variant: they are split into a level of each
    shape and a factor of each way by alternating medians."""
    factors: dict[Way, float] = {}
    levels: dict[str, float] = {}
    for _ in range(SWEEPS):
        levels = _medians(
            (key.signature, value - factors.get((key.variant, key.output), 0.0)) for key, value in logarithms.items()
        )
        found = _medians(
            ((key.variant, key.output), value - levels[key.signature]) for key, value in logarithms.items()
        )
        factors = found
    return levels


def _medians(pairs: Iterable[tuple[Name, float]]) -> dict[Name, float]:
    gathered: dict[Name, list[float]] = defaultdict(list)
    for name, value in pairs:
        gathered[name].append(value)
    return {name: float(np.median(values)) for name, values in gathered.items()}


def _amounts(shapes: Sequence[StepShape]) -> Floats:
    return np.array([terms(shape) for shape in shapes], np.float64)


def _places(shapes: Sequence[StepShape]) -> Floats:
    return np.array([coordinates(shape) for shape in shapes], np.float64)
