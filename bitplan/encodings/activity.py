"""The contexts of an entropy-coded layer: how large the levels around a weight have been so far.

A layer's levels are coded as a matrix [out, K], K = (kernel height, kernel width, input channel of the group), in groups
of as many rows as there are lanes; within a group column by column, within a column row by row. What a decoder knows of
a weight then is the row so far and the same column in earlier groups. Both are kept as running means of min(|level|, 15)
in units of 1/256, and their product, on a logarithmic scale, is the *activity* of the weight (0..62). Trained weights
differ in magnitude from row to row and from column to column, so that their levels are cheaper by activity.

Everything is in integers, because the decoder has to find the very same numbers.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

CAP = 15
"""Larger magnitudes count as this one."""
UNIT = 256
ACTIVITIES = 63
"""Number of different activities."""
PRIOR = 5
"""The mean that a layer starts from weighs as much as 4 levels; 5 with the one that is added."""
WINDOW = 64
"""Running means forget what is further back than about so many levels."""


def logarithms() -> NDArray[np.int64]:
    """By running mean 0..15 * 256: its logarithm in quarters of an octave, 0..31 (linear between octaves' quarters)."""
    values = np.arange(CAP * UNIT + 1) + 16
    octave = np.frexp(values)[1].astype(np.int64) - 1  # exact for integers
    return 4 * (octave - 4) + (values >> (octave - 2) & 3)


LOGARITHM = logarithms()


def row_gain(column: int) -> int:
    """The weight of the level at `column` in its row's running mean, in units of 2^-16."""
    return 65536 // min(column + PRIOR, WINDOW)


def column_gain(seen: int, rows: int) -> int:
    """The weight of each of `rows` levels in their column's running mean after `seen` earlier rows, in units of 2^-16."""
    return 65536 // (min(seen + PRIOR - 1, WINDOW) + rows)


def start_mean(levels: NDArray[np.int8]) -> int:
    """The mean that both running means start from."""
    return int(np.rint(UNIT * np.minimum(np.abs(levels.astype(np.int64)), CAP).mean()))


def activities(levels: NDArray[np.int8], start: int, lanes: int) -> NDArray[np.uint8]:
    """The activity of every weight, [out, K]."""
    magnitudes = np.minimum(np.abs(levels.astype(np.int64)), CAP) * UNIT
    rows, columns = levels.shape
    by_row = np.empty((columns, rows), np.uint8)
    mean = np.full(rows, start, np.int64)
    for column, level in enumerate(np.ascontiguousarray(magnitudes.T)):
        by_row[column] = LOGARITHM[mean]
        mean += (level - mean) * row_gain(column) >> 16
    found = by_row.T.copy()
    mean = np.full(columns, start, np.int64)
    for first in range(0, rows, lanes):
        group = magnitudes[first : first + lanes]
        found[first : first + lanes] += LOGARITHM[mean].astype(np.uint8)
        mean += (group.sum(0) - len(group) * mean) * column_gain(first, len(group)) >> 16
    return found
