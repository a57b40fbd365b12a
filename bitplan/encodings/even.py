"""Evenly spaced symmetric levels of few bits that need no code of their own in the runtime: the file says where they begin
and how far apart they are, and a layer is decoded at load to `int8`.

docs/adding-an-encoding.md adds an encoding of this kind.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from bitplan.encodings.base import EncodedLayer, FloatArray
from bitplan.encodings.bits import pack_bits, packed_size, unpack_bits
from bitplan.encodings.grid import Grid
from bitplan.encodings.levels import LevelEncoding, best_scale
from bitplan.errors import FileFormatError
from bitplan.variant import Variant

HEADER = 2
MOST_BITS = 7
"""With 8, int8 stores the levels themselves."""


class EvenLevels(LevelEncoding):
    """Levels -top, -top + step, ..., top; the codes are [lowest level i8][step u8][(level + top) / step, `bits` bits each]."""

    number: ClassVar[int] = 13
    on_default_menu: ClassVar[bool] = False

    @property
    def stored_as(self) -> str:
        return "even"

    def __init__(self, name: str, bits: int, zero: bool) -> None:
        """Levels of `bits` bits, 2 to 7: with a zero the whole numbers up to 2^(bits - 1) - 1, one code being left over;
        without it the odd ones up to 2^bits - 1 (decision 0002). Raises ValueError for other numbers of bits."""
        if not 2 <= bits <= MOST_BITS:
            raise ValueError(f"{name} has {bits} bits; evenly spaced levels are stored in 2 to {MOST_BITS}")
        self.name, self.bits = name, bits  # type: ignore[misc]
        self.step: int
        self.top: int
        self.step, self.top = (1, 2 ** (bits - 1) - 1) if zero else (2, 2**bits - 1)
        self.variants = (Variant(name),)

    def levels_of(self, rows: FloatArray, variant: Variant) -> tuple[NDArray[np.int8], FloatArray]:
        levels = Grid.of(-self.top, self.step, self.top)
        return best_scale(rows, self.top, lambda ratio: levels.nearest(ratio).astype(np.float32))

    def grid(self, layer: EncodedLayer) -> Grid:
        return Grid.of(-self.top, self.step, self.top)

    def in_memory(self, variant: Variant) -> Variant:
        return Variant("int8", variant.activation)

    def record_number(self, layer: EncodedLayer) -> int:
        return self.bits

    # -- bytes ----------------------------------------------------------------------------------------------------

    def code_bytes(self, count: int) -> int:
        return HEADER + packed_size(count, self.bits)

    def resident_code_bytes(self, count: int) -> int:
        return count

    def pack_codes(self, levels: NDArray[np.int8]) -> bytes:
        codes = (levels.astype(np.int64) + self.top) // self.step
        return (-self.top).to_bytes(1, signed=True) + bytes([self.step]) + pack_bits(codes, self.bits)

    def unpack_codes(self, data: bytes, count: int) -> NDArray[np.int8]:
        lowest, step = int.from_bytes(data[:1], signed=True), data[1]
        if (lowest, step) != (-self.top, self.step):
            raise FileFormatError(
                f"a packed {self.name} layer has levels from {lowest} in steps of {step}; expected from {-self.top} in "
                f"steps of {self.step}"
            )
        levels = unpack_bits(data[HEADER:], count, self.bits) * step + lowest
        if levels.max() > self.top:
            raise FileFormatError(f"a level of {levels.max()} in a {self.name} layer; its levels reach to {self.top}")
        return levels.astype(np.int8)
