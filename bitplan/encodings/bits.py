"""Bit packing, least significant bit first, and Elias-Fano coding of ascending positions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bitplan.errors import FileFormatError

Codes = NDArray[np.uint8]


def packed_size(count: int, bits: int) -> int:
    """Bytes of `count` codes of `bits` bits each."""
    return -(-count * bits // 8)


def pack_bits(codes: NDArray[np.integer], bits: int) -> bytes:
    """Packs codes < 2**bits one behind the other; the last byte is filled up with zeros."""
    if bits == 0:
        return b""
    columns = (np.asarray(codes)[:, None] >> np.arange(bits)) & 1
    return np.packbits(columns.astype(np.uint8).ravel(), bitorder="little").tobytes()


def unpack_bits(data: bytes, count: int, bits: int) -> NDArray[np.int64]:
    """The inverse of `pack_bits`."""
    if bits == 0:
        return np.zeros(count, np.int64)
    flat = np.unpackbits(np.frombuffer(data, np.uint8), count=count * bits, bitorder="little")
    return flat.reshape(count, bits).astype(np.int64) @ (1 << np.arange(bits, dtype=np.int64))


def elias_fano_shift(count: int, universe: int) -> int:
    """Number of low bits stored verbatim: floor(log2(universe / count))."""
    return (universe // count).bit_length() - 1 if 0 < count <= universe else 0


def elias_fano_size(count: int, universe: int) -> int:
    """Bytes of `count` ascending positions below `universe`: fixed by these two numbers alone."""
    if count == 0:
        return 0
    shift = elias_fano_shift(count, universe)
    return packed_size(count, shift) + packed_size(count + (universe >> shift) + 1, 1)


def elias_fano(positions: NDArray[np.int64], universe: int) -> bytes:
    """Low bits of all positions, then a bitmap that has bit (position >> shift) + i set for the i-th position."""
    count = len(positions)
    if count == 0:
        return b""
    shift = elias_fano_shift(count, universe)
    high = np.zeros(count + (universe >> shift) + 1, np.uint8)
    high[(positions >> shift) + np.arange(count)] = 1
    return pack_bits(positions & ((1 << shift) - 1), shift) + np.packbits(high, bitorder="little").tobytes()


def from_elias_fano(data: bytes, count: int, universe: int) -> NDArray[np.int64]:
    """The inverse of `elias_fano`. Raises FileFormatError where the data is not of that form."""
    if count == 0:
        return np.zeros(0, np.int64)
    shift = elias_fano_shift(count, universe)
    low_bytes = packed_size(count, shift)
    low = unpack_bits(data[:low_bytes], count, shift)
    high = np.flatnonzero(np.unpackbits(np.frombuffer(data[low_bytes:], np.uint8), bitorder="little"))
    if len(high) != count:
        raise FileFormatError(f"the positions of kept weights hold {len(high)} entries, {count} were announced")
    positions = ((high - np.arange(count)) << shift) + low
    if np.any(np.diff(positions) <= 0) or positions[-1] >= universe:
        raise FileFormatError("the positions of kept weights are not ascending or leave the layer")
    return positions
