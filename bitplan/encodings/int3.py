"""int3: eight levels, stored as a plane of two low bits and a plane of one high bit, both easy to expand."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bitplan.encodings.bits import pack_bits, packed_size, unpack_bits
from bitplan.encodings.levels import UniformEncoding


class Int3(UniformEncoding):
    def __init__(self) -> None:
        super().__init__(bits=3, number=3)

    def code_bytes(self, count: int) -> int:
        return packed_size(count, 2) + packed_size(count, 1)

    def pack_codes(self, levels: NDArray[np.int8]) -> bytes:
        codes = (levels.astype(np.int64) + 7) >> 1
        return pack_bits(codes & 3, 2) + pack_bits(codes >> 2, 1)

    def unpack_codes(self, data: bytes, count: int) -> NDArray[np.int8]:
        split = packed_size(count, 2)
        codes = unpack_bits(data[:split], count, 2) + 4 * unpack_bits(data[split:], count, 1)
        return (2 * codes - 7).astype(np.int8)
