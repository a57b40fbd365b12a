"""The levels that each weight of a layer may take: what rounding steps other than the nearest choose from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Levels = NDArray[np.integer]


@dataclass(frozen=True)
class Grid:
    """Evenly spaced levels lowest, lowest + step, ..., highest; each array broadcasts to the weight's rows [out, K]."""

    lowest: Levels
    step: Levels
    highest: Levels

    @classmethod
    def of(cls, lowest: int, step: int, highest: int) -> Grid:
        """The same levels for all weights."""
        return cls(*(np.full((1, 1), value, np.int64) for value in (lowest, step, highest)))

    def to(self, rows: int, columns: int) -> Grid:
        """The grid with one entry for each weight."""
        arrays = (self.lowest, self.step, self.highest)
        return Grid(*(np.broadcast_to(array, (rows, columns)) for array in arrays))

    def nearest(self, ratio: NDArray[np.floating], column: int | slice = slice(None)) -> NDArray[np.float64]:
        """The nearest level to each weight / scale, [out, K], or [out] of one column."""
        lowest, step, highest = (array[:, column] for array in (self.lowest, self.step, self.highest))
        return np.clip(lowest + step * np.rint((ratio - lowest) / step), lowest, highest)
