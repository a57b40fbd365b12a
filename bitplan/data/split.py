"""Which images calibrate and which test: deterministic, and disjoint.

- A set without a split of its own is shuffled with the seed; the first `calibration` images (at most half of all)
  calibrate, the rest tests.
- A set with one calibrates on the first `calibration` images of its shuffled training part, and tests on its test part.
- `limit` bounds the number of test images: the first of the shuffled ones, in the set's own order.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitplan.data.dataset import DEFAULT_CALIBRATION
from bitplan.errors import DataError, UsageError

Indices = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Split:
    """How many images calibrate, at most how many test (None: all), and the seed of the shuffle."""

    calibration: int = DEFAULT_CALIBRATION
    limit: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value in (("calibration", self.calibration), ("limit", self.limit)):
            if value is not None and value < 1:
                raise UsageError(f"{name} is {value}; it must be at least one image")

    def divide(self, count: int, source: str) -> tuple[Indices, Indices]:
        """Indices of calibration and test images in one set of `count`, ascending. Raises DataError below two."""
        if count < 2:
            raise DataError(f"{source}: {count} image cannot be split into calibration and test; give at least two")
        order = np.random.default_rng(self.seed).permutation(count)
        size = min(self.calibration, count // 2)
        return np.sort(order[:size]), np.sort(order[size:][: self.limit])

    def choose(self, training: int, test: int) -> tuple[Indices, Indices]:
        """Indices into a training set and into a test set of these sizes, ascending."""
        return self._first(training, self.calibration), self._first(test, self.limit)

    @staticmethod
    def everything() -> Split:
        """The split of a set that is there to train on: all of its training part, or of a set without parts."""
        return _Everything(sys.maxsize, 1)

    def _first(self, count: int, size: int | None) -> Indices:
        if size is None or size >= count:
            return np.arange(count)
        return np.sort(np.random.default_rng(self.seed).permutation(count)[:size])


class _Everything(Split):
    """Nothing is left for tests, but the one image that a `Dataset` must have."""

    def divide(self, count: int, source: str) -> tuple[Indices, Indices]:
        return np.arange(count), np.arange(min(count, 1))
