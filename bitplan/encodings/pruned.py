"""pruned, prunedfloat: element-wise (unstructured) pruning; a share of the weights is kept, the others are zero.

    pruned       kept weights as 8-bit levels; loaded, a layer of int8
    prunedfloat  kept weights as float16 ratios of the layer's largest; loaded, a layer of float32

Magnitude pruning (Han et al. 2015) rounds to them: the layer's largest weights are kept. Which are best kept once the
others make up for those that are gone is for recovery to find (policies/realise/pruning.py). The file holds kept weights
and a mask; in memory the zeros are there again, and no kernel skips them: pruning makes the file small, not the layer fast.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from bitplan.encodings.base import EncodedLayer, FloatArray, padded
from bitplan.encodings.channel_numbers import halves, round_to_half
from bitplan.encodings.float32 import Float32
from bitplan.encodings.grid import Grid
from bitplan.encodings.levels import ExtraLevels, best_scale
from bitplan.encodings.mask import kept_count, largest, mask_size, pack_mask, stored_positions, unpack_mask
from bitplan.encodings.order import stream_order
from bitplan.errors import FileFormatError
from bitplan.network import WeightShape
from bitplan.variant import F32, FLOAT32, U8, Variant

SHARES = (0.1, 0.2, 0.3, 0.5)
LEAST_SHARE = 0.01
"""With fewer weights kept, a small file could ask for very much memory."""
TOP = 127


def kept_weights(shape: WeightShape, variant: Variant) -> int:
    """How many weights of a layer are kept."""
    return kept_count(shape.count, variant.parameter("kept"))


class Pruned(ExtraLevels):
    """Behind the biases: [level i8 x kept][mask], both in stream order."""

    name: ClassVar[str] = "pruned"
    number: ClassVar[int] = 11
    on_default_menu: ClassVar[bool] = False
    parameters: ClassVar[Mapping[str, tuple[float, float]]] = {"kept": (LEAST_SHARE, 1.0)}
    variants = tuple(Variant("pruned", U8, (("kept", share),)) for share in SHARES)

    def levels_of(self, rows: FloatArray, variant: Variant) -> tuple[NDArray[np.int8], FloatArray]:
        kept = largest(np.abs(rows), kept_count(rows.size, variant.parameter("kept")))
        return best_scale(np.where(kept, rows, np.float32(0)), TOP, lambda ratio: np.clip(np.rint(ratio), -TOP, TOP))

    def in_memory(self, variant: Variant) -> Variant:
        return Variant("int8", variant.activation)

    def grid(self, layer: EncodedLayer) -> Grid:
        """Weights that are pruned stay zero."""
        reach = np.where(layer.levels.reshape(layer.shape.out_channels, -1) != 0, TOP, 0)
        return Grid(-reach, np.ones_like(reach), reach)

    def record_number(self, layer: EncodedLayer) -> int:
        return kept_weights(layer.shape, layer.variant)

    # -- bytes ----------------------------------------------------------------------------------------------------

    def extra_bytes(self, shape: WeightShape, variant: Variant) -> int:
        kept = kept_weights(shape, variant)
        return kept + mask_size(kept, shape.count)

    def pack_extra(self, layer: EncodedLayer) -> bytes:
        """Raises UsageError for more levels that are not zero than the variant keeps."""
        stream = layer.levels.reshape(-1)[stream_order(layer.shape)]
        positions = stored_positions(stream, kept_weights(layer.shape, layer.variant))
        return stream[positions].tobytes() + pack_mask(positions, layer.shape.count)

    def unpack_extra(self, data: bytes, layer: EncodedLayer) -> EncodedLayer:
        shape = layer.shape
        kept = kept_weights(shape, layer.variant)
        values = np.frombuffer(data, np.int8, kept)
        if np.any(values < -TOP):
            raise FileFormatError(f"a level of -128 in a pruned layer; its levels reach to -{TOP}")
        positions = unpack_mask(data[kept : kept + mask_size(kept, shape.count)], kept, shape.count)
        levels = np.zeros(shape.count, np.int8)
        levels[stream_order(shape)[positions]] = values
        return replace(layer, levels=levels.reshape(layer.levels.shape))


class PrunedFloat(Float32):
    """[unit f32][bias f32 x out][ratio f16 x kept][mask], both in stream order; a kept weight is unit x ratio. The ratios'
    rounding errors, 2^-11 at most of a weight, are far below what pruning costs."""

    name: ClassVar[str] = "prunedfloat"
    number: ClassVar[int] = 12
    on_default_menu: ClassVar[bool] = False
    parameters: ClassVar[Mapping[str, tuple[float, float]]] = {"kept": (LEAST_SHARE, 1.0)}
    variants = tuple(Variant("prunedfloat", F32, (("kept", share),)) for share in SHARES)

    def quantise(self, weight: FloatArray, bias: FloatArray, variant: Variant, groups: int = 1) -> EncodedLayer:
        layer = super().quantise(weight, bias, variant, groups)
        kept = largest(np.abs(layer.values), kept_weights(layer.shape, variant))
        return replace(layer, values=round_to_half(np.where(kept, layer.values, np.float32(0))))

    def in_memory(self, variant: Variant) -> Variant:
        return FLOAT32

    def full_precision_weights(self, shape: WeightShape, variant: Variant) -> int:
        return kept_weights(shape, variant)

    def record_number(self, layer: EncodedLayer) -> int:
        return kept_weights(layer.shape, layer.variant)

    def size_bytes(self, shape: WeightShape, variant: Variant) -> int:
        kept = kept_weights(shape, variant)
        return padded(4 + 4 * shape.out_channels + 2 * kept + mask_size(kept, shape.count))

    def pack(self, layer: EncodedLayer) -> bytes:
        """Raises UsageError for more weights that are not zero than the variant keeps."""
        unit, ratios = halves(layer.values.reshape(-1)[stream_order(layer.shape)])
        positions = stored_positions(ratios, kept_weights(layer.shape, layer.variant))
        data = np.array([unit], "<f4").tobytes() + layer.bias.astype("<f4").tobytes()
        data += ratios[positions].astype("<f2").tobytes() + pack_mask(positions, layer.shape.count)
        return data.ljust(padded(len(data)), b"\0")

    def unpack(self, data: bytes, shape: WeightShape, variant: Variant) -> EncodedLayer:
        expected = self.size_bytes(shape, variant)
        if len(data) != expected:
            raise FileFormatError(f"a packed {variant} layer of {shape} has {expected} bytes, not {len(data)}")
        out, kept = shape.out_channels, kept_weights(shape, variant)
        numbers = np.frombuffer(data, "<f4", 1 + out).astype(np.float32)
        start = 4 + 4 * out
        ratios = np.frombuffer(data, "<f2", kept, start).astype(np.float32)
        start += 2 * kept
        positions = unpack_mask(data[start : start + mask_size(kept, shape.count)], kept, shape.count)
        values = np.zeros(shape.count, np.float32)
        values[stream_order(shape)[positions]] = numbers[0] * ratios
        height, width = shape.kernel
        size = (out, shape.in_channels // shape.groups, height, width)
        return EncodedLayer(variant, shape, numbers[1:], values=values.reshape(size))
