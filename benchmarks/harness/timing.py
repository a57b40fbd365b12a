"""Candidates timed in turn: many rounds, in each a short burst of every candidate in changing order, so that drifts of
the machine fall on all alike. Quantiles are taken over all runs; ratios are of equal quantiles."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

LOW = 0.1
FEWEST_RUNS, MOST_RUNS = 3, 50
"""Runs of a burst, besides a first one that finds the caches full of another's data and does not count."""

Burst = Callable[[int], list[float]]
"""Seconds of each of so many runs."""


@dataclass(frozen=True, slots=True)
class Effort:
    """rounds: visits of every candidate; seconds: aimed at for one burst."""

    rounds: int
    seconds: float


FULL, QUICK = Effort(30, 0.01), Effort(5, 0.003)


def interleave(bursts: Mapping[str, Burst], effort: Effort, seed: int = 0) -> dict[str, list[float]]:
    """Seconds of all counted runs, by name."""
    typical = {name: min(burst(FEWEST_RUNS)) for name, burst in bursts.items()}
    runs = {
        name: min(max(math.ceil(effort.seconds / max(seconds, 1e-9)), FEWEST_RUNS), MOST_RUNS)
        for name, seconds in typical.items()
    }
    samples: dict[str, list[float]] = {name: [] for name in bursts}
    shuffle = random.Random(seed)
    for _ in range(effort.rounds):
        for name in shuffle.sample(list(bursts), len(bursts)):
            samples[name] += bursts[name](runs[name] + 1)[1:]
    return samples


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Milliseconds of one call, and how many calls were timed."""

    low: float
    median: float
    runs: int

    @staticmethod
    def of(seconds: list[float]) -> Quantiles:
        low, median = np.quantile(np.asarray(seconds), (LOW, 0.5))
        return Quantiles(1e3 * float(low), 1e3 * float(median), len(seconds))


def per_part(whole: Quantiles, rest: Quantiles, parts: int) -> Quantiles:
    """What each of `parts` parts adds to a call: (whole - rest) / parts in each quantile."""
    return Quantiles((whole.low - rest.low) / parts, (whole.median - rest.median) / parts, min(whole.runs, rest.runs))
