"""ternary: levels -1, 0, 1; five weights in a byte on disk (1.6 bits each), two bits each in memory."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from bitplan.encodings.base import EncodedLayer, FloatArray
from bitplan.encodings.bits import packed_size
from bitplan.encodings.grid import Grid
from bitplan.encodings.levels import LevelEncoding
from bitplan.errors import FileFormatError
from bitplan.variant import Variant

POWERS = np.array([1, 3, 9, 27, 81])


class Ternary(LevelEncoding):
    name: ClassVar[str] = "ternary"
    number: ClassVar[int] = 5
    sign_planes: ClassVar[int] = 2
    variants: tuple[Variant, ...] = (Variant("ternary"),)

    def levels_of(self, rows: FloatArray, variant: Variant) -> tuple[NDArray[np.int8], FloatArray]:
        """The best ternary row keeps the k largest |w| that maximise (sum of the kept |w|)^2 / k; its scale is
        their mean (closed form; PTQ, arXiv 2107.10998, fixes the scale by normalising instead)."""
        magnitudes = np.abs(rows)
        descending = -np.sort(-magnitudes, 1)
        sums = np.cumsum(descending, 1, dtype=np.float64)
        count = 1 + np.argmax(sums**2 / np.arange(1, rows.shape[1] + 1), 1)
        threshold = np.take_along_axis(descending, count[:, None] - 1, 1)
        levels = np.where((magnitudes >= threshold) & (magnitudes > 0), np.sign(rows), 0).astype(np.int8)
        nonzeros = np.maximum(np.abs(levels).sum(1), 1)
        return levels, ((rows * levels).sum(1) / nonzeros).astype(np.float32)

    def grid(self, layer: EncodedLayer) -> Grid:
        return Grid.of(-1, 1, 1)

    def code_bytes(self, count: int) -> int:
        return -(-count // 5)

    def resident_code_bytes(self, count: int) -> int:
        return packed_size(count, 2)

    def pack_codes(self, levels: NDArray[np.int8]) -> bytes:
        digits = np.zeros(5 * self.code_bytes(len(levels)), np.int64)
        digits[: len(levels)] = levels + 1
        return np.asarray(digits.reshape(-1, 5) @ POWERS, np.uint8).tobytes()

    def unpack_codes(self, data: bytes, count: int) -> NDArray[np.int8]:
        groups = np.frombuffer(data, np.uint8).astype(np.int64)
        if np.any(groups > 242):
            raise FileFormatError(f"byte {groups.max()} is not five ternary digits")
        digits = groups[:, None] // POWERS % 3
        return np.asarray(digits.ravel()[:count] - 1, np.int8)
