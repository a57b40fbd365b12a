"""float32: weights and bias as they are, float activations."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from bitplan.encodings.base import EncodedLayer, Encoding, FloatArray, padded
from bitplan.encodings.order import BLOCK, stream_order
from bitplan.errors import FileFormatError
from bitplan.network import WeightShape
from bitplan.variant import F32, FLOAT32, Variant


class Float32(Encoding):
    """[bias f32 x out][weights f32 in stream order]."""

    name: ClassVar[str] = "float32"
    number: ClassVar[int] = 0
    activations: ClassVar[tuple[str, ...]] = (F32,)
    tolerance: ClassVar[float] = 1e-4
    variants: tuple[Variant, ...] = (FLOAT32,)

    def quantise(self, weight: FloatArray, bias: FloatArray, variant: Variant, groups: int = 1) -> EncodedLayer:
        shape = WeightShape(weight.shape[0], weight.shape[1] * groups, (weight.shape[2], weight.shape[3]), groups)
        return EncodedLayer(variant, shape, np.asarray(bias, np.float32), values=np.asarray(weight, np.float32))

    def size_bytes(self, shape: WeightShape, variant: Variant) -> int:
        return padded(4 * (shape.out_channels + shape.count))

    def resident_bytes(self, shape: WeightShape, variant: Variant, kernel: str | None = None) -> int:
        outputs = shape.out_channels // shape.groups
        columns = 1 if shape.depthwise else -(-outputs // BLOCK) * BLOCK
        return 4 * (shape.out_channels + shape.groups * columns * shape.reduction)

    def full_precision_weights(self, shape: WeightShape, variant: Variant) -> int:
        return shape.count

    def pack(self, layer: EncodedLayer) -> bytes:
        stream = layer.values.reshape(-1)[stream_order(layer.shape)]
        data = layer.bias.astype("<f4").tobytes() + stream.astype("<f4").tobytes()
        return data.ljust(padded(len(data)), b"\0")

    def unpack(self, data: bytes, shape: WeightShape, variant: Variant) -> EncodedLayer:
        expected = self.size_bytes(shape, variant)
        if len(data) != expected:
            raise FileFormatError(f"a packed float32 layer of {shape} has {expected} bytes, not {len(data)}")
        numbers = np.frombuffer(data, "<f4", shape.out_channels + shape.count).astype(np.float32)
        values = np.empty(shape.count, np.float32)
        values[stream_order(shape)] = numbers[shape.out_channels :]
        height, width = shape.kernel
        size = (shape.out_channels, shape.in_channels // shape.groups, height, width)
        return EncodedLayer(variant, shape, numbers[: shape.out_channels], values=values.reshape(size))
