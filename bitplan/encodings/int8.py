"""int8: levels -127..127 stored as signed bytes, so that the int8 kernels read them as they are."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from bitplan.encodings.base import EncodedLayer, FloatArray
from bitplan.encodings.grid import Grid
from bitplan.encodings.levels import LevelEncoding, best_scale
from bitplan.variant import Variant


class Int8(LevelEncoding):
    name: ClassVar[str] = "int8"
    number: ClassVar[int] = 1
    variants = (Variant("int8"),)

    def levels_of(self, rows: FloatArray, variant: Variant) -> tuple[NDArray[np.int8], FloatArray]:
        return best_scale(rows, 127, lambda ratio: np.clip(np.rint(ratio), -127, 127))

    def grid(self, layer: EncodedLayer) -> Grid:
        return Grid.of(-127, 1, 127)

    def code_bytes(self, count: int) -> int:
        return count

    def pack_codes(self, levels: NDArray[np.int8]) -> bytes:
        return levels.tobytes()

    def unpack_codes(self, data: bytes, count: int) -> NDArray[np.int8]:
        return np.frombuffer(data, np.int8, count)
