"""xor: levels -1, 0, 1 at a fixed rate, made from a few stored bits by an XOR network (after SQNN, arXiv 1905.10138).

Signs and mask both come out of the network (`xor_network`), so that the quantiser does not choose which weights to
keep and then code them: it searches all codes for the one whose levels are nearest to the weights (`trellis`). That is
what makes 0.25 bits per weight worth having (decision 0014). In memory a layer is a ternary one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import sqrt
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from bitplan.encodings.base import EncodedLayer, FloatArray
from bitplan.encodings.channel_numbers import SHORT_FLOATS
from bitplan.encodings.order import stream_order
from bitplan.encodings.ternary import Ternary
from bitplan.encodings.trellis import nearest_registers
from bitplan.encodings.xor_network import STEP, code_of, code_size, decode, network_table
from bitplan.errors import FileFormatError
from bitplan.network import WeightShape
from bitplan.variant import U8, Variant

RATES = (0.25, 0.5, 1.0)
"""Bits per weight of the default menu."""

SIXTEENTHS = 16 * STEP
"""A rate is stored in sixteenths of a bit per step of four weights."""

SEED = 0
HEADER = 2
"""Bytes of seed and density before the code."""

DENSITIES = ((0.28, 20), (0.5, 56), (1.0, 100), (1.5, 140))
"""Density of the network, in 1 / 256, by bits per weight, between which is interpolated: little more or less changes
little, heavier tails want less (decision 0014). The search prefers paths
that keep: 20 / 256 leaves 91 % pruned."""

SAMPLE = 4096
"""Weights on which the magnitude of the levels is found before all are coded."""


class Xor(Ternary):
    name: ClassVar[str] = "xor"
    number: ClassVar[int] = 10
    numbers = SHORT_FLOATS
    parameters: ClassVar[Mapping[str, tuple[float, float]]] = {"bits": (0.2, 1.5)}
    variants = tuple(Variant("xor", U8, (("bits", bits),)) for bits in RATES)

    def quantise(self, weight: FloatArray, bias: FloatArray, variant: Variant, groups: int = 1) -> EncodedLayer:
        """Of all codes the one of least squared error, for magnitudes in proportion to the root mean square of each
        channel; then the least-squares magnitudes."""
        shape = WeightShape(weight.shape[0], weight.shape[1] * groups, (weight.shape[2], weight.shape[3]), groups)
        rows = np.asarray(weight, np.float32).reshape(len(weight), -1)
        spread = np.sqrt((rows.astype(np.float64) ** 2).mean(1)).astype(np.float32)
        order = stream_order(shape)
        stream, unit = rows.reshape(-1)[order], spread[order // rows.shape[1]]
        rate, density = rate_of(variant), self.density(variant)
        magnitude = 1.5
        for _ in range(2):
            sample = levels_near(stream[:SAMPLE], magnitude * unit[:SAMPLE], rate, density)[1]
            made = sample * unit[:SAMPLE]
            magnitude = float(stream[:SAMPLE] @ made) / max(float(made @ made), 1e-30) or magnitude
        code, found = levels_near(stream, magnitude * unit, rate, density)
        levels = np.empty(shape.count, np.int8)
        levels[order] = found
        levels = levels.reshape(rows.shape)
        scale = np.maximum((rows * levels).sum(1), 0) / np.maximum(np.abs(levels).sum(1), 1)
        return EncodedLayer(
            variant,
            shape,
            bias,
            levels=levels.reshape(weight.shape),
            code=with_header(code, density),
            numbers=self.numbers,
        ).rescaled(scale)

    def density(self, variant: Variant) -> int:
        """Of the network of new layers; the file says which one a layer has."""
        bits, densities = zip(*DENSITIES, strict=True)
        return round(float(np.interp(variant.parameter("bits"), bits, densities)))

    def in_memory(self, variant: Variant) -> Variant:
        return Variant("ternary", variant.activation)

    def random_layer(
        self, shape: WeightShape, variant: Variant, spread: float, rng: np.random.Generator
    ) -> EncodedLayer:
        """A layer of a random code, without bias, whose weights have the root mean square `spread`."""
        code = rng.integers(0, 256, code_size(shape.count, rate_of(variant)), np.uint8)
        size = (shape.out_channels, shape.in_channels // shape.groups, *shape.kernel)
        zero = np.zeros(shape.out_channels, np.float32)
        blank = EncodedLayer(variant, shape, zero, zero, np.zeros(size, np.int8), numbers=self.numbers)
        layer = decoded(blank, with_header(code, self.density(variant)))
        share = max(float(np.abs(layer.levels).mean()), 1 / shape.count)
        return layer.rescaled(np.full(shape.out_channels, spread / sqrt(share), np.float32))

    def code_bytes(self, count: int) -> int:
        return 0

    def pack_codes(self, levels: NDArray[np.int8]) -> bytes:
        return b""

    def unpack_codes(self, data: bytes, count: int) -> NDArray[np.int8]:
        return np.zeros(count, np.int8)

    def extra_bytes(self, shape: WeightShape, variant: Variant) -> int:
        return HEADER + code_size(shape.count, rate_of(variant))

    def record_number(self, layer: EncodedLayer) -> int:
        return rate_of(layer.variant)

    def pack_extra(self, layer: EncodedLayer) -> bytes:
        if not np.array_equal(decoded(layer, layer.code).levels, layer.levels):
            raise ValueError("the levels of an xor layer are not those of its code; quantise its weights anew")
        return layer.code.tobytes()

    def unpack_extra(self, data: bytes, layer: EncodedLayer) -> EncodedLayer:
        code = np.frombuffer(data, np.uint8, self.extra_bytes(layer.shape, layer.variant)).copy()
        if code[1] == 0:
            raise FileFormatError("the density of an xor layer is 0; it must be in 1..255")
        return decoded(layer, code)


def rate_of(variant: Variant) -> int:
    """The rate in sixteenths of a bit per step."""
    return round(SIXTEENTHS * variant.parameter("bits"))


def with_header(code: NDArray[np.uint8], density: int) -> NDArray[np.uint8]:
    return np.concatenate([np.array([SEED, density], np.uint8), code])


def decoded(layer: EncodedLayer, code: NDArray[np.uint8]) -> EncodedLayer:
    """The layer with the levels that a code (with its header) stands for."""
    levels = np.empty(layer.shape.count, np.int8)
    levels[stream_order(layer.shape)] = decode(
        code[HEADER:], layer.shape.count, rate_of(layer.variant), int(code[0]), int(code[1])
    )
    return replace(layer, levels=levels.reshape(layer.levels.shape), code=code)


def levels_near(
    weights: FloatArray, magnitudes: FloatArray, rate: int, density: int
) -> tuple[NDArray[np.uint8], NDArray[np.int8]]:
    """The code, and its levels, that minimise the sum of (weight - magnitude * level)^2 over a stream of weights."""
    bend, slope = magnitudes * magnitudes, 2 * weights * magnitudes
    costs = np.stack([bend + slope, np.zeros_like(bend), bend - slope], 1)
    contents = nearest_registers(costs, rate, network_table(SEED, density))
    code = code_of(contents, len(weights), rate)
    return code, decode(code, len(weights), rate, SEED, density)
