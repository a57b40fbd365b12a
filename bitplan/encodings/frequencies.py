"""Frequency tables of signed levels: how few bytes describe them, and which classes of activity get one each.

A table gives each level of -top..top a whole frequency; the frequencies add up to 2^12, and a level of frequency f costs
12 - log2 f bits. Levels of one magnitude have one frequency. A table is described by *lengths*, code lengths in eighths
of a bit before they are normalised, one per magnitude; rounding them so costs less than 0.001 bits per level.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PRECISION = 12
TOTAL = 1 << PRECISION
ABSENT = 255
"""The length of a magnitude that cannot be coded."""
NEUTRAL = 128
"""In a law of lengths, the length of magnitude 1."""
MAX_CLASSES = 8

Counts = NDArray[np.int64]

POWERS = np.rint(2.0 ** (31 + np.arange(8) / 8)).astype(np.int64)
"""2^(31 + j / 8), as FORMAT.md lists them."""


def frequencies(lengths: NDArray[np.int64]) -> Counts:
    """Frequencies by magnitude (0: of level 0; m: of m and of -m each) from lengths by magnitude [..., top + 1], at
    least 1 unless absent; the level 0 takes what is left."""
    weights = POWERS[-lengths & 7] >> (lengths + 7 >> 3)
    weights = np.where(lengths == ABSENT, 0, weights)
    present = (lengths[..., 1:] != ABSENT).sum(-1, keepdims=True)
    total = weights[..., :1] + 2 * weights[..., 1:].sum(-1, keepdims=True)
    found = weights * (TOTAL - 1 - 2 * present) // np.maximum(total, 1)
    found = np.where(lengths == ABSENT, 0, found + 1)
    found[..., 0] = TOTAL - 2 * found[..., 1:].sum(-1)
    return found


def law(parameters: NDArray[np.integer], top: int) -> NDArray[np.int64]:
    """Lengths [..., top + 1] that follow laws of three numbers 0..255 each [..., 3]: that of magnitude 0, and from
    magnitude 1 on a slope (1/8 of a length each) and a curvature (signed, 1/32): a Gaussian, a Laplacian, or what lies
    around them. Lengths do not fall with magnitude."""
    zero, slope, curvature = np.moveaxis(np.asarray(parameters, np.int64)[..., None], -2, 0)
    steps = np.arange(top)
    beyond = NEUTRAL + (steps * (4 * slope + ((curvature ^ 128) - 128) * steps) >> 5)
    beyond = np.maximum.accumulate(np.clip(beyond, 0, ABSENT - 1), -1)
    return np.concatenate([np.minimum(zero, ABSENT - 1), beyond], -1)


def law_bytes(top: int) -> int:
    """Bytes of the numbers of a law that matter."""
    return min(top, 3)


def law_cost(top: int) -> float:
    """Bits that a class of its own costs where lengths follow laws."""
    return 8 * (1 + law_bytes(top))


def cost(counts: Counts, found: Counts) -> NDArray[np.float64]:
    """Bits of levels counted by magnitude [..., top + 1], with tables of these frequencies; infinite where one is
    absent that occurs."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(counts > 0, counts * (PRECISION - np.log2(found)), 0).sum(-1))


def listed(counts: Counts) -> bytes:
    """The lengths, one byte per magnitude, that suit levels counted by magnitude."""
    shares = counts / np.where(np.arange(len(counts)) > 0, 2, 1) / max(counts.sum(), 1)
    with np.errstate(divide="ignore"):
        lengths = np.rint(np.minimum(-8 * np.log2(shares), ABSENT - 1))
    return np.where((counts > 0) | (np.arange(len(counts)) == 0), lengths, ABSENT).astype(np.uint8).tobytes()


def fitted(counts: Counts) -> bytes:
    """The law that suits levels counted by magnitude: by search, coarse and then fine."""
    top = len(counts) - 1
    ratio = np.log2((counts[0] + 0.5) / (counts[1] / 2 + 0.5))
    zero = int(np.clip(NEUTRAL - np.rint(8 * ratio), 0, ABSENT - 1))
    best = np.array([zero, 40, 0] if top > 1 else [zero, 0, 0])
    for reach in (32, 8, 2, 1) if top > 1 else ():
        slopes = np.clip(best[1] + reach * np.arange(-4, 5), 0, 255)
        curvatures = ((best[2] ^ 128) - 128) + reach * np.arange(-3, 4) if top > 2 else np.zeros(1, np.int64)
        curvatures = np.clip(curvatures, -128, 127) & 255
        grid = np.stack(np.meshgrid([zero], slopes, curvatures, indexing="ij"), -1).reshape(-1, 3)
        best = grid[np.argmin(cost(counts, frequencies(law(grid, top))))]
    return best.astype(np.uint8).tobytes()[: law_bytes(top)]


@dataclass(frozen=True)
class Tables:
    """By class of activity, the lengths in the file; class = number of thresholds that are not above the activity.

    top: largest magnitude; thresholds: ascending; are_listed: whether lengths are listed, or else follow laws."""

    top: int
    thresholds: tuple[int, ...]
    are_listed: bool
    descriptions: tuple[bytes, ...]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """[classes, top + 1]."""
        if self.are_listed:
            return np.stack([np.frombuffer(d, np.uint8).astype(np.int64) for d in self.descriptions])
        return law(np.stack([np.frombuffer(d.ljust(3, b"\0"), np.uint8) for d in self.descriptions]), self.top)

    @property
    def frequencies(self) -> Counts:
        """[classes, top + 1]."""
        return frequencies(self.lengths)

    @property
    def size_bytes(self) -> int:
        return len(self.thresholds) + sum(map(len, self.descriptions))


def best_tables(counts: Counts) -> Tables:
    """The tables of fewest bits, their own included, for levels counted by activity and magnitude [activities, top + 1]."""
    top = counts.shape[1] - 1
    return min(
        (_tables(counts, segments, are_listed) for segments, are_listed in _divisions(counts, top)),
        key=lambda tables: 8 * tables.size_bytes + by_class(counts, tables.thresholds, tables.frequencies),
    )


def by_class(counts: Counts, thresholds: tuple[int, ...], found: Counts) -> float:
    """Bits of all levels."""
    return float(cost(np.add.reduceat(counts, [0, *thresholds]), found).sum())


def _tables(counts: Counts, thresholds: tuple[int, ...], are_listed: bool) -> Tables:
    classes = np.add.reduceat(counts, [0, *thresholds])
    return Tables(
        counts.shape[1] - 1, thresholds, are_listed, tuple((listed if are_listed else fitted)(c) for c in classes)
    )


def _divisions(counts: Counts, top: int) -> list[tuple[tuple[int, ...], bool]]:
    """The best division of activities into classes, for laws and for listed lengths."""
    return [(divide(counts, law_cost(top)), False), (divide(counts, 8 * (2 + top)), True)]


def divide(counts: Counts, bits_per_class: float) -> tuple[int, ...]:
    """The thresholds that divide activities into at most 8 classes of least total entropy; each class costs so much."""
    occupied = np.flatnonzero(counts.sum(1))
    first, bins = int(occupied[0]), int(occupied[-1] - occupied[0]) + 1
    sums = np.concatenate([np.zeros((1, counts.shape[1])), np.cumsum(counts[first : first + bins], 0)])
    spans = np.maximum(sums[None] - sums[:, None], 0)  # [from, to]
    entropy = entropies(spans) + bits_per_class
    entropy[np.tril_indices(bins + 1)] = np.inf
    least, cuts = entropy[0], [np.zeros(bins + 1, np.int64)]
    best = float(least[-1])
    thresholds: tuple[int, ...] = ()
    for _ in range(MAX_CLASSES - 1):
        through = least[:, None] + entropy
        cuts.append(np.argmin(through, 0))
        least = through.min(0)
        if least[-1] < best:
            best, thresholds = float(least[-1]), _walk_back(cuts, first, bins)
    return thresholds


def _walk_back(cuts: list[NDArray[np.int64]], first: int, bins: int) -> tuple[int, ...]:
    end, found = bins, []
    for cut in cuts[:0:-1]:
        end = int(cut[end])
        found.append(first + end)
    return tuple(found[::-1])


def entropies(counts: NDArray[np.floating] | Counts) -> NDArray[np.float64]:
    """Bits of symbols counted along the last axis, coded with their own frequencies (signs are left out)."""
    totals = counts.sum(-1)
    return np.asarray(totals * np.log2(np.maximum(totals, 1)) - (counts * np.log2(np.maximum(counts, 1))).sum(-1))
