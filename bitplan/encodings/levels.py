"""The encodings that store one small code per weight and one scale per output channel."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from math import prod
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from bitplan.compute import BITS, BYTES, LOOKUP, kernels_for
from bitplan.encodings.base import EncodedLayer, Encoding, FloatArray, padded
from bitplan.encodings.bits import pack_bits, packed_size, unpack_bits
from bitplan.encodings.channel_numbers import HALVES, ChannelNumbers
from bitplan.encodings.grid import Grid
from bitplan.encodings.order import stream_order
from bitplan.errors import FileFormatError
from bitplan.network import WeightShape
from bitplan.variant import Variant


class LevelEncoding(Encoding):
    """Shared by all encodings of levels: [scales and biases][codes][extra], filled up with zeros to a multiple of eight
    bytes."""

    numbers: ClassVar[ChannelNumbers] = HALVES
    """How the file holds scales and biases."""

    sign_planes: ClassVar[int] = 1
    """Bits per weight in the kernels on signs: the sign, and another where a level can be zero."""

    # -- what a concrete encoding says of itself ------------------------------------------------------------------

    @abstractmethod
    def levels_of(self, rows: FloatArray, variant: Variant) -> tuple[NDArray[np.int8], FloatArray]:
        """Levels [out, K] and scale [out] for weight rows [out, K]."""

    @abstractmethod
    def code_bytes(self, count: int) -> int:
        """Bytes of `count` codes in the file."""

    @abstractmethod
    def pack_codes(self, levels: NDArray[np.int8]) -> bytes:
        """Packs a stream of levels (1-d, already in stream order)."""

    @abstractmethod
    def unpack_codes(self, data: bytes, count: int) -> NDArray[np.int8]:
        """The inverse of `pack_codes`."""

    def resident_code_bytes(self, count: int) -> int:
        """Bytes of `count` codes in memory: as stored unless said otherwise."""
        return self.code_bytes(count)

    @abstractmethod
    def grid(self, layer: EncodedLayer) -> Grid:
        """The levels that each weight of a layer may take while its size, and which weights are kept, stay the same."""

    # -- what follows from it ------------------------------------------------------------------------------------

    def quantise(self, weight: FloatArray, bias: FloatArray, variant: Variant, groups: int = 1) -> EncodedLayer:
        shape = WeightShape(weight.shape[0], weight.shape[1] * groups, (weight.shape[2], weight.shape[3]), groups)
        levels, scale = self.levels_of(np.asarray(weight, np.float32).reshape(len(weight), -1), variant)
        levels = levels.reshape(weight.shape).astype(np.int8)
        return EncodedLayer(variant, shape, bias, levels=levels, numbers=self.numbers).rescaled(scale)

    def size_bytes(self, shape: WeightShape, variant: Variant) -> int:
        numbers = self.numbers.size_bytes(shape.out_channels)
        return padded(numbers + self.code_bytes(shape.count) + self.extra_bytes(shape, variant))

    def resident_bytes(self, shape: WeightShape, variant: Variant, kernel: str | None = None) -> int:
        multipliers_and_biases = 8 * shape.out_channels
        kernels = kernels_for(variant) if kernel is None else (kernel,)
        return multipliers_and_biases + max(
            self.resident_weight_bytes(shape, name) + self.resident_extra_bytes(shape, variant, name)
            for name in kernels
        )

    def resident_weight_bytes(self, shape: WeightShape, kernel: str) -> int:
        """Bytes of the weights as a kernel wants them. Raises ValueError for one that does not run such layers."""
        words_of_32 = prod(shape.kernel) * -(-shape.in_channels // 32)
        if kernel == BYTES:
            return shape.count if shape.depthwise else self.resident_code_bytes(shape.count)
        if kernel == BITS:
            channels = 16 * -(-shape.out_channels // 16)
            planes, offsets = 4 * channels * words_of_32 * self.sign_planes, 4 * channels
            return planes + offsets
        if kernel == LOOKUP:
            return 16 * -(-shape.out_channels // 32) * 8 * words_of_32 * self.sign_planes
        raise ValueError(f"the kernel {kernel!r} does not run {self.name} layers")

    def extra_bytes(self, shape: WeightShape, variant: Variant) -> int:
        """Bytes behind the codes (the kept weights of APB)."""
        return 0

    def resident_extra_bytes(self, shape: WeightShape, variant: Variant, kernel: str) -> int:
        """Bytes in memory beside the weights' codes (the kept weights of APB)."""
        return 0

    def pack_extra(self, layer: EncodedLayer) -> bytes:
        return b""

    def pack(self, layer: EncodedLayer) -> bytes:
        data = self.numbers.pack(layer.scale, layer.bias, layer.live)
        data += self.pack_codes(layer.levels.reshape(-1)[stream_order(layer.shape)])
        data += self.pack_extra(layer)
        return data.ljust(padded(len(data)), b"\0")

    def unpack(self, data: bytes, shape: WeightShape, variant: Variant) -> EncodedLayer:
        expected = self.size_bytes(shape, variant)
        if len(data) != expected:
            raise FileFormatError(f"a packed {variant} layer of {shape} has {expected} bytes, not {len(data)}")
        out = shape.out_channels
        scale, bias = self.numbers.unpack(data, out)
        start = self.numbers.size_bytes(out)
        end = start + self.code_bytes(shape.count)
        levels = np.empty(shape.count, np.int8)
        levels[stream_order(shape)] = self.unpack_codes(data[start:end], shape.count)
        height, width = shape.kernel
        layer = EncodedLayer(
            variant,
            shape,
            bias=bias,
            scale=scale,
            levels=levels.reshape(out, shape.in_channels // shape.groups, height, width),
            numbers=self.numbers,
        )
        return self.unpack_extra(data[end:], layer)

    def unpack_extra(self, data: bytes, layer: EncodedLayer) -> EncodedLayer:
        return layer


class UniformEncoding(LevelEncoding):
    """Evenly spaced symmetric levels without zero, {-(2^b - 1), ..., -1, 1, ..., 2^b - 1}: at few bits a grid of
    2^b half-steps has a smaller error than one of 2^b - 1 steps with zero (Gaussian weights, b = 2: 0.119 against
    0.190 of the variance; b = 3: 0.037 against 0.047)."""

    def __init__(self, bits: int, number: int) -> None:
        self.name, self.number, self.bits = f"int{bits}", number, bits  # type: ignore[misc]
        self.variants = (Variant(self.name),)

    def levels_of(self, rows: FloatArray, variant: Variant) -> tuple[NDArray[np.int8], FloatArray]:
        top = 2**self.bits - 1

        def round_to_levels(ratio: FloatArray) -> FloatArray:
            return np.asarray(np.clip(2 * np.floor(ratio / 2) + 1, -top, top), np.float32)

        return best_scale(rows, top, round_to_levels)

    def grid(self, layer: EncodedLayer) -> Grid:
        return Grid.of(1 - 2**self.bits, 2, 2**self.bits - 1)

    def code_bytes(self, count: int) -> int:
        return packed_size(count, self.bits)

    def pack_codes(self, levels: NDArray[np.int8]) -> bytes:
        return pack_bits((levels.astype(np.int64) + 2**self.bits - 1) >> 1, self.bits)

    def unpack_codes(self, data: bytes, count: int) -> NDArray[np.int8]:
        return np.asarray(2 * unpack_bits(data, count, self.bits) - (2**self.bits - 1), np.int8)


class ExtraLevels(LevelEncoding):
    """Levels that lie in the extra part, since their size depends on the variant, and take a byte each in memory."""

    def code_bytes(self, count: int) -> int:
        return 0

    def pack_codes(self, levels: NDArray[np.int8]) -> bytes:
        return b""

    def unpack_codes(self, data: bytes, count: int) -> NDArray[np.int8]:
        return np.zeros(count, np.int8)

    def resident_code_bytes(self, count: int) -> int:
        return count


def best_scale(
    rows: FloatArray, top: int, round_to_levels: Callable[[FloatArray], FloatArray]
) -> tuple[NDArray[np.int8], FloatArray]:
    """Levels and scale per row that minimise the squared error, by search over shrunken ranges; given its levels,
    each candidate's scale is the least-squares one. A row of zeros gets scale zero."""
    largest = np.abs(rows).max(1)
    safe = np.where(largest > 0, largest, 1).astype(np.float32)
    best_error = np.full(len(rows), np.inf)
    best_levels = np.zeros(rows.shape, np.int8)
    scale = np.zeros(len(rows), np.float32)
    for shrink in np.linspace(1.0, 0.3, 36, dtype=np.float32):
        levels = round_to_levels(rows / (safe * shrink / top)[:, None])
        energy = (levels * levels).sum(1)
        fitted = (rows * levels).sum(1) / np.maximum(energy, 1e-30)
        error = ((rows - fitted[:, None] * levels) ** 2).sum(1)
        better = error < best_error
        best_error[better] = error[better]
        best_levels[better] = levels[better]
        scale[better] = fitted[better]
    scale[largest == 0] = 0
    return best_levels, scale
