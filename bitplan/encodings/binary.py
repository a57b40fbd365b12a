"""binary: levels -1 and 1, one bit each (set: +1)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from bitplan.encodings.base import EncodedLayer, FloatArray
from bitplan.encodings.bits import pack_bits, packed_size, unpack_bits
from bitplan.encodings.grid import Grid
from bitplan.encodings.levels import LevelEncoding
from bitplan.variant import Variant


class Binary(LevelEncoding):
    name: ClassVar[str] = "binary"
    number: ClassVar[int] = 6
    variants: tuple[Variant, ...] = (Variant("binary"),)

    def levels_of(self, rows: FloatArray, variant: Variant) -> tuple[NDArray[np.int8], FloatArray]:
        """sign(w), zero counting as positive, and the least-squares scale mean|w|."""
        return np.where(rows < 0, -1, 1).astype(np.int8), np.abs(rows).mean(1, dtype=np.float64).astype(np.float32)

    def grid(self, layer: EncodedLayer) -> Grid:
        return Grid.of(-1, 2, 1)

    def code_bytes(self, count: int) -> int:
        return packed_size(count, 1)

    def pack_codes(self, levels: NDArray[np.int8]) -> bytes:
        return pack_bits((levels > 0).astype(np.uint8), 1)

    def unpack_codes(self, data: bytes, count: int) -> NDArray[np.int8]:
        return (2 * unpack_bits(data, count, 1) - 1).astype(np.int8)
