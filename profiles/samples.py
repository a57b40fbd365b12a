"""From samples of running time to quantiles."""

from __future__ import annotations

from collections.abc import Sequence

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


def summary(samples: Sequence[float] | NDArray[np.float64]) -> Latency:
    """Median, 10 % and 90 % quantile."""
    low, median, high = np.quantile(np.asarray(samples, np.float64), (0.1, 0.5, 0.9))
    return Latency(float(median), float(low), float(high), len(samples))
