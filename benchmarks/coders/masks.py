"""Masks of the weights to keep, and what it costs to store them."""

from __future__ import annotations

from math import lgamma, log

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Energy = NDArray[np.float32]


def largest(energy: Energy, share: float) -> Mask:
    """The free mask: the largest weights."""
    count = round(share * energy.size)
    threshold = np.partition(energy.ravel(), energy.size - count)[energy.size - count]
    return np.asarray(energy >= threshold)


def enumerative_bits(mask: Mask) -> float:
    """log2 of the number of masks with as many ones: what the best code of free masks takes."""
    n, k = mask.size, int(mask.sum())
    return (lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)) / log(2)


def one_of(energy: Energy, width: int) -> Mask:
    """The largest of every `width` weights along a row (N:M sparsity with N = 1); log2(width) / width bits each."""
    flat = energy.ravel()
    groups = flat[: flat.size // width * width].reshape(-1, width)
    mask = np.zeros(energy.size, bool)
    mask[np.arange(len(groups)) * width + groups.argmax(1)] = True
    return mask.reshape(energy.shape)


def low_rank(energy: Energy, tile: int, rank: int, share: float, sweeps: int = 6) -> Mask:
    """A Boolean product of two small binary matrices in each tile, [tile, rank] x [rank, tile], 2 rank / tile bits per
    weight (the masks of Lee et al., arXiv 1905.05686), chosen for the kept energy: coordinate ascent on the energy of
    the mask less a price per kept weight, which is set so that about `share` are kept."""
    rows, columns = (size // tile for size in energy.shape)
    parts = energy[: rows * tile, : columns * tile].reshape(rows, tile, columns, tile).transpose(0, 2, 1, 3)
    parts = np.ascontiguousarray(parts.reshape(-1, tile, tile))
    rng = np.random.default_rng(0)
    left = (rng.random((len(parts), tile, rank)) < 0.06).astype(np.float32)
    right = (rng.random((len(parts), rank, tile)) < 0.06).astype(np.float32)
    price = float(np.quantile(parts, 1 - share))
    for sweep in range(sweeps):
        gain = parts - np.float32(price)
        cover = left @ right
        for term in range(rank):
            column, row = left[:, :, term], right[:, term, :]
            free = gain * (cover - column[:, :, None] * row[:, None, :] == 0)
            new_column = (np.einsum("trc,tc->tr", free, row) > 0).astype(np.float32)
            new_row = (np.einsum("trc,tr->tc", free, new_column) > 0).astype(np.float32)
            dead = (new_column.sum(1) == 0) | (new_row.sum(1) == 0)
            if dead.any():  # begins anew at the best weight that nothing covers
                best = (free[dead] * (cover[dead] == 0)).reshape(int(dead.sum()), -1).argmax(1)
                new_column[dead], new_row[dead] = 0, 0
                new_column[np.flatnonzero(dead), best // tile] = 1
                new_row[dead] = (free[np.flatnonzero(dead), best // tile] > 0) * 1.0
                new_row[np.flatnonzero(dead), best % tile] = 1
            cover += new_column[:, :, None] * new_row[:, None, :] - column[:, :, None] * row[:, None, :]
            left[:, :, term], right[:, term, :] = new_column, new_row
        kept = float((cover > 0).mean())
        price *= 1.0 if sweep + 1 == sweeps else float(np.clip((kept / share) ** 0.5, 0.7, 1.4))
    mask = (left @ right > 0).reshape(rows, columns, tile, tile).transpose(0, 2, 1, 3)
    return np.asarray(mask.reshape(rows * tile, columns * tile))
