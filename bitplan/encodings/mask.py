"""Which weights of a layer are stored: a bitmap, or Elias-Fano code where that is smaller.

Both have a size that follows from two counts, so that sizes are known before anything is packed (decision 0003). Of three
weights in ten and more it is the bitmap, one bit for each weight; of one in ten 0.525 bits (the entropy is 0.469).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bitplan.encodings.bits import elias_fano, elias_fano_size, from_elias_fano, packed_size
from bitplan.errors import FileFormatError, UsageError


def kept_count(count: int, share: float) -> int:
    """How many of `count` weights a share of them is; one at least."""
    return max(1, round(share * count))


def mask_size(kept: int, count: int) -> int:
    """Bytes of the mask of `kept` among `count` weights."""
    return min(packed_size(count, 1), elias_fano_size(kept, count))


def pack_mask(positions: NDArray[np.int64], count: int) -> bytes:
    """The mask of ascending positions below `count`."""
    if elias_fano_size(len(positions), count) < packed_size(count, 1):
        return elias_fano(positions, count)
    mask = np.zeros(count, np.uint8)
    mask[positions] = 1
    return np.packbits(mask, bitorder="little").tobytes()


def unpack_mask(data: bytes, kept: int, count: int) -> NDArray[np.int64]:
    """The inverse of `pack_mask`. Raises FileFormatError where the data is no mask of so many weights."""
    if elias_fano_size(kept, count) < packed_size(count, 1):
        return from_elias_fano(data, kept, count)
    positions = np.flatnonzero(np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")).astype(np.int64)
    if len(positions) != kept or positions[-1] >= count:
        raise FileFormatError(f"the mask of {count} weights marks {len(positions)} of its bits, {kept} were announced")
    return positions


def stored_positions(stream: NDArray[np.generic], kept: int) -> NDArray[np.int64]:
    """The positions, ascending, of the `kept` numbers of a stream that are stored: all that are not zero and, where these
    are fewer, the first zeros. Raises UsageError where they are more."""
    nonzero = stream != 0
    count = int(np.count_nonzero(nonzero))
    if count > kept:
        raise UsageError(
            f"{count} weights of a pruned layer are not zero; its variant keeps {kept}: prune more or keep a larger share"
        )
    stored = nonzero.copy()
    stored[np.flatnonzero(~nonzero)[: kept - count]] = True
    return np.flatnonzero(stored).astype(np.int64)


def largest(magnitudes: NDArray[np.floating], kept: int) -> NDArray[np.bool_]:
    """The mask, shaped as `magnitudes`, of the `kept` largest."""
    flat = np.zeros(magnitudes.size, bool)
    flat[np.argpartition(-magnitudes.ravel(), kept - 1)[:kept]] = True
    return flat.reshape(magnitudes.shape)
