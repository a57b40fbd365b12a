"""APB: binary weights plus a few that are kept as levels of their own (after automatic prune binarization, arXiv 2306.08960).

    apb     kept weights as levels of 8 bits, -63 to 63
    apb4    kept weights as levels of 4 bits, -7 to 7: three beside the sign, which stands among the codes

In integers throughout: the binary weights have the levels -unit and unit, one `unit` for the layer, and a kept weight
any level in -top..top, so that it lies on a grid of 1 / unit of its channel's magnitude (decision 0007). The positions of
the kept ones are stored in Elias-Fano code, whose size depends on the layer's size and the fraction alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from bitplan.compute import BYTES
from bitplan.encodings.base import EncodedLayer, FloatArray
from bitplan.encodings.binary import Binary
from bitplan.encodings.bits import elias_fano, elias_fano_size, from_elias_fano, pack_bits, packed_size, unpack_bits
from bitplan.encodings.channel_numbers import round_to_half
from bitplan.encodings.grid import Grid
from bitplan.encodings.order import stream_order
from bitplan.errors import FileFormatError
from bitplan.network import WeightShape
from bitplan.variant import U8, Variant

FRACTIONS = (0.005, 0.01, 0.02, 0.04)

MAGNITUDE_BITS = 3
"""Of a kept weight of `apb4`, as the file holds it."""

PANEL = 64
"""Output channels whose kept weights the kernel `bytes` holds together."""


class Apb(Binary):
    name: ClassVar[str] = "apb"
    number: ClassVar[int] = 7
    parameters: ClassVar[Mapping[str, tuple[float, float]]] = {"kept": (0.0, 0.5)}
    variants = tuple(Variant("apb", U8, (("kept", fraction),)) for fraction in FRACTIONS)
    top: ClassVar[int] = 63
    """The largest level: sums of two products with 8-bit activations then fit into 16 bits."""

    def kept(self, shape: WeightShape, variant: Variant) -> int:
        """Number of weights that are kept."""
        return round(variant.parameter("kept") * shape.count)

    def quantise(self, weight: FloatArray, bias: FloatArray, variant: Variant, groups: int = 1) -> EncodedLayer:
        """The kept set and the channels' magnitudes come first, as if kept weights were exact; then the unit of least
        squared error, and the least-squares scales."""
        binary = super().quantise(weight, bias, variant, groups)
        rows = np.asarray(weight, np.float32).reshape(len(weight), -1)
        positions, magnitude = farthest(np.abs(rows), self.kept(binary.shape, variant))
        owner, kept = positions // rows.shape[1], rows.reshape(-1)[positions]
        unit = best_unit(kept, magnitude[owner], self.top)
        scale: FloatArray = magnitude / np.float32(unit)
        levels = unit * np.where(rows < 0, -1, 1).astype(np.int8)
        for _ in range(2):  # the second time the kept weights are rounded for the scales that were found
            levels.reshape(-1)[positions] = kept_levels(kept, scale[owner], self.top)
            energy = (levels.astype(np.float32) ** 2).sum(1)
            scale = round_to_half(np.maximum((rows * levels).sum(1), 0) / np.maximum(energy, 1))
        return replace(binary, scale=scale, levels=levels.reshape(binary.levels.shape), kept_positions=positions)

    def grid(self, layer: EncodedLayer) -> Grid:
        """The layer's unit stays as it is too."""
        count, unit = layer.shape.count, unit_of(layer)
        kept = np.zeros(count, bool)
        kept[layer.kept_positions] = True
        lowest, step = np.where(kept, -self.top, -unit), np.where(kept, 1, 2 * unit)
        size = (layer.shape.out_channels, -1)
        return Grid(lowest.reshape(size), step.reshape(size), -lowest.reshape(size))

    def full_precision_weights(self, shape: WeightShape, variant: Variant) -> int:
        return self.kept(shape, variant)

    def extra_bytes(self, shape: WeightShape, variant: Variant) -> int:
        count = self.kept(shape, variant)
        return 1 + self.level_bytes(count) + elias_fano_size(count, shape.count)

    def level_bytes(self, count: int) -> int:
        """Of the levels of `count` kept weights in the file."""
        return count

    def pack_levels(self, kept: NDArray[np.int8]) -> bytes:
        return kept.tobytes()

    def unpack_levels(self, data: bytes, signs: NDArray[np.int8]) -> NDArray[np.int8]:
        """The inverse of `pack_levels`, for kept weights whose codes stand for these signs."""
        return np.frombuffer(data, np.int8, len(signs))

    def resident_extra_bytes(self, shape: WeightShape, variant: Variant, kernel: str) -> int:
        count = self.kept(shape, variant)
        if kernel != BYTES:
            return 4 * (shape.out_channels + 1) + 6 * count
        if shape.depthwise:  # in their places among the other levels, which are held as bytes
            return 0
        panels = shape.groups * -(-shape.out_channels // shape.groups // PANEL)
        return 4 * (panels + 1) + 5 * count

    def pack_extra(self, layer: EncodedLayer) -> bytes:
        rank = np.empty(layer.shape.count, np.int64)
        rank[stream_order(layer.shape)] = np.arange(layer.shape.count)
        positions = rank[layer.kept_positions]
        ascending = np.argsort(positions)
        kept = layer.levels.reshape(-1)[layer.kept_positions[ascending]]
        stored = bytes([unit_of(layer)]) + self.pack_levels(kept)
        return stored + elias_fano(positions[ascending], layer.shape.count)

    def unpack_extra(self, data: bytes, layer: EncodedLayer) -> EncodedLayer:
        count, size = self.kept(layer.shape, layer.variant), layer.shape.count
        unit, start = data[0], 1 + self.level_bytes(count)
        if not 1 <= unit <= self.top:
            raise FileFormatError(f"the unit of an {self.name} layer is {unit}; it must be in 1..{self.top}")
        stream = from_elias_fano(data[start : start + elias_fano_size(count, size)], count, size)
        positions = stream_order(layer.shape)[stream]
        ascending = np.argsort(positions)
        kept = self.unpack_levels(data[1:start], layer.levels.reshape(-1)[positions])
        if np.any(kept > self.top) or np.any(kept < -self.top):
            raise FileFormatError(f"the level of a kept weight is outside -{self.top}..{self.top}")
        levels = unit * layer.levels
        levels.reshape(-1)[positions] = kept
        return replace(layer, levels=levels, kept_positions=positions[ascending])


class Apb4(Apb):
    """Three bits of magnitude suffice for kept weights: at the same bytes half as many more are kept than by `apb`. Loaded, a
    layer is one of `apb`."""

    name: ClassVar[str] = "apb4"
    number: ClassVar[int] = 14
    on_default_menu: ClassVar[bool] = False
    variants = tuple(Variant("apb4", U8, (("kept", fraction),)) for fraction in (0.03, 0.06, 0.12))
    top: ClassVar[int] = 2**MAGNITUDE_BITS - 1

    def in_memory(self, variant: Variant) -> Variant:
        return replace(variant, encoding=Apb.name)

    def level_bytes(self, count: int) -> int:
        return packed_size(count, MAGNITUDE_BITS)

    def pack_levels(self, kept: NDArray[np.int8]) -> bytes:
        return pack_bits(np.abs(kept), MAGNITUDE_BITS)

    def unpack_levels(self, data: bytes, signs: NDArray[np.int8]) -> NDArray[np.int8]:
        return (signs * unpack_bits(data, len(signs), MAGNITUDE_BITS)).astype(np.int8)


def unit_of(layer: EncodedLayer) -> int:
    """The magnitude of the levels that are not kept."""
    return abs(int(np.delete(layer.levels.reshape(-1), layer.kept_positions)[0]))


def farthest(magnitudes: FloatArray, count: int) -> tuple[NDArray[np.int64], FloatArray]:
    """The `count` weights to keep (positions, ascending), and the magnitude [out] of the others, from |w| [out, K].
    For given magnitudes the set that minimises the squared error is the one farthest from them; alternates with
    magnitude = mean |w| of the others, per channel."""
    found, chosen = magnitudes.mean(1), np.zeros(0, np.int64)
    for _ in range(20):
        distance = np.abs(magnitudes - found[:, None]).ravel()
        previous, chosen = chosen, np.sort(np.argpartition(-distance, count - 1)[:count] if count else chosen)
        rest = np.ones(magnitudes.size, bool)
        rest[chosen] = False
        others = rest.reshape(magnitudes.shape)
        mean = (magnitudes * others).sum(1) / np.maximum(others.sum(1), 1)
        found = np.where(others.any(1) & (mean > 0), mean, magnitudes.mean(1)).astype(np.float32)
        if np.array_equal(previous, chosen):
            break
    return chosen, found


def kept_levels(kept: FloatArray, scale: FloatArray, top: int) -> NDArray[np.int8]:
    """The nearest levels of kept weights, each with the scale of its channel."""
    ratio = kept / np.where(scale > 0, scale, 1)
    return np.clip(np.rint(ratio), -top, top).astype(np.int8)


def best_unit(kept: FloatArray, magnitude: FloatArray, top: int) -> int:
    """The unit that gives kept weights, each in a channel of the given magnitude, the least squared error: a large one
    is a fine grid, a small one reaches far. The smallest of those that are as good; 1 where nothing is kept."""
    scales = (magnitude / np.float32(unit) for unit in range(1, top + 1))
    return 1 + int(np.argmin([((kept - kept_levels(kept, scale, top) * scale) ** 2).sum() for scale in scales]))
