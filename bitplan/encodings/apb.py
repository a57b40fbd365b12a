"""APB: binary weights plus a few kept in full precision (automatic prune binarization, arXiv 2306.08960).

The kept weights are stored as float16 ratios to their channel's scale, their positions in Elias-Fano code, whose
size depends on the layer's size and the fraction alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

import numpy as np

from bitplan.encodings.base import EncodedLayer, FloatArray, round_to_half
from bitplan.encodings.binary import Binary
from bitplan.encodings.bits import elias_fano, elias_fano_size, from_elias_fano
from bitplan.encodings.order import stream_order
from bitplan.errors import FileFormatError
from bitplan.network import WeightShape
from bitplan.variant import U8, Variant

FRACTIONS = (0.005, 0.01, 0.02, 0.04)


class Apb(Binary):
    name: ClassVar[str] = "apb"
    number: ClassVar[int] = 7
    parameters: ClassVar[Mapping[str, tuple[float, float]]] = {"kept": (0.0, 0.5)}
    variants = tuple(Variant("apb", U8, (("kept", fraction),)) for fraction in FRACTIONS)

    def kept(self, shape: WeightShape, variant: Variant) -> int:
        """Number of weights kept in full precision."""
        return round(variant.parameter("kept") * shape.count)

    def quantise(self, weight: FloatArray, bias: FloatArray, variant: Variant, groups: int = 1) -> EncodedLayer:
        """For a given scale the kept set that minimises the squared error is the one farthest from it in |w|
        (methods: for a fixed fraction and scale); alternates with scale = mean |w| of the others, per channel."""
        binary = super().quantise(weight, bias, variant, groups)
        count = self.kept(binary.shape, variant)
        magnitudes = np.abs(np.asarray(weight, np.float32).reshape(len(weight), -1))
        scale, chosen = binary.scale, np.zeros(0, np.int64)
        for _ in range(20):
            distance = np.abs(magnitudes - scale[:, None]).ravel()
            previous, chosen = chosen, np.sort(np.argpartition(-distance, count - 1)[:count] if count else chosen)
            rest = np.ones(magnitudes.size, bool)
            rest[chosen] = False
            others = rest.reshape(magnitudes.shape)
            mean = (magnitudes * others).sum(1) / np.maximum(others.sum(1), 1)
            scale = np.where(others.any(1) & (mean > 0), mean, magnitudes.mean(1)).astype(np.float32)
            if np.array_equal(previous, chosen):
                break
        scale = round_to_half(scale)
        owner = chosen // magnitudes.shape[1]
        ratios = np.asarray(weight, np.float32).reshape(-1)[chosen] / np.where(scale > 0, scale, 1)[owner]
        ratios = np.clip(ratios, -65504, 65504).astype(np.float16).astype(np.float32)
        return replace(binary, scale=scale, kept_positions=chosen, kept_ratios=ratios)

    def full_precision_weights(self, shape: WeightShape, variant: Variant) -> int:
        return self.kept(shape, variant)

    def extra_bytes(self, shape: WeightShape, variant: Variant) -> int:
        count = self.kept(shape, variant)
        return 2 * count + elias_fano_size(count, shape.count)

    def resident_bytes(self, shape: WeightShape, variant: Variant) -> int:
        if shape.depthwise:  # held as floats: too small a share of the network to deserve kernels of its own
            return 8 * shape.out_channels + 4 * shape.count
        lists_by_channel = 4 * (shape.out_channels + 1) + 8 * self.kept(shape, variant)
        return super().resident_bytes(shape, variant) + lists_by_channel

    def pack_extra(self, layer: EncodedLayer) -> bytes:
        rank = np.empty(layer.shape.count, np.int64)
        rank[stream_order(layer.shape)] = np.arange(layer.shape.count)
        positions = rank[layer.kept_positions]
        ascending = np.argsort(positions)
        ratios = layer.kept_ratios[ascending].astype("<f2").tobytes()
        return ratios + elias_fano(positions[ascending], layer.shape.count)

    def unpack_extra(self, data: bytes, layer: EncodedLayer) -> EncodedLayer:
        count, size = self.kept(layer.shape, layer.variant), layer.shape.count
        ratios = np.frombuffer(data, "<f2", count).astype(np.float32)
        if not np.all(np.isfinite(ratios)):
            raise FileFormatError("a kept weight is not finite")
        end = 2 * count + elias_fano_size(count, size)
        positions = stream_order(layer.shape)[from_elias_fano(data[2 * count : end], count, size)]
        ascending = np.argsort(positions)
        return replace(layer, kept_positions=positions[ascending], kept_ratios=ratios[ascending])
