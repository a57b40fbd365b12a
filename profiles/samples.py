"""From samples of running time to quantiles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitplan.profiles.device import Latency

GAP = 1.5
"""A run this many times longer than the 10 % quantile was interrupted by something else."""


def undisturbed(totals: Sequence[float] | NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which of the runs were not interrupted."""
    array = np.asarray(totals, np.float64)
    return np.asarray(array <= GAP * np.quantile(array, 0.1))


def without_gaps(totals: Sequence[float]) -> NDArray[np.float64]:
    array = np.asarray(totals, np.float64)
    return array[undisturbed(array)]


def calmer_half(anchors: Sequence[Sequence[float]]) -> list[int]:
    """The visits, at least half of them, during which the machine was least busy with other work, in order.
    `anchors` are the anchor's seconds at each visit."""
    levels = np.array([np.median(times) for times in anchors])
    return [int(index) for index in np.flatnonzero(levels <= np.median(levels))]


def middle_half(totals: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which of the runs are between the quartiles."""
    low, high = np.quantile(totals, (0.25, 0.75))
    return np.asarray((low <= totals) & (totals <= high))


@dataclass(frozen=True, slots=True)
class StepSamples:
    """Seconds of one step in all undisturbed runs of a network, and in those runs whose total is in the middle half."""

    every: NDArray[np.float64]
    middle: NDArray[np.float64]


def step_latency(pools: Sequence[StepSamples]) -> Latency:
    """The latency of a step from its samples in several networks.

    Its `median` is what the step adds to a median run: the mean over the runs in the middle half of their network. The
    medians of steps would not add up: each step is delayed now and then, so that some step is delayed in most runs,
    and the sum of the steps' medians is up to 5 % below the median of the sums.
    """
    every = summary(np.concatenate([samples.every for samples in pools]))
    share = float(np.mean(np.concatenate([samples.middle for samples in pools])))
    return Latency(share, min(every.low, share), max(every.high, share), every.samples)


def summary(samples: Sequence[float] | NDArray[np.float64]) -> Latency:
    """Median, 10 % and 90 % quantile."""
    low, median, high = np.quantile(np.asarray(samples, np.float64), (0.1, 0.5, 0.9))
    return Latency(float(median), float(low), float(high), len(samples))
