"""coded, codedternary: levels in entropy code, so that a file holds fewer bits than memory.

`bits` is a rate: the coded levels of a layer have ceil(count x bits / 8) bytes whatever the weights are, so that sizes
are known before anything is packed (decision 0003); the finest quantisation that fits is chosen. Once loaded, a layer is
one of `int8` or `ternary`, and every kernel of these runs it.

Who chooses levels otherwise (a recovery that rounds differently, say) keeps within the rate by `fits`, `code_lengths`
and `shrink`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import ceil
from typing import ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from bitplan.encodings.base import EncodedLayer, FloatArray
from bitplan.encodings.bits import packed_size
from bitplan.encodings.channel_numbers import SHORT_FLOATS
from bitplan.encodings.grid import Grid
from bitplan.encodings.level_stream import decode, encode, lanes_for
from bitplan.encodings.levels import ExtraLevels
from bitplan.encodings.rate_distortion import Census, quantise_at_rate, shrink
from bitplan.errors import FileFormatError, UsageError
from bitplan.network import WeightShape
from bitplan.variant import U8, Variant

Number = TypeVar("Number", bound=np.generic)

LEAST_BITS = 0.05
"""With fewer per weight, a small file could ask for very much memory."""


class Coded(ExtraLevels):
    name: ClassVar[str] = "coded"
    number: ClassVar[int] = 8
    top: ClassVar[int] = 127
    """The largest level."""
    loaded: ClassVar[str] = "int8"
    """The encoding that a loaded layer has."""
    numbers = SHORT_FLOATS
    parameters: ClassVar[Mapping[str, tuple[float, float]]] = {"bits": (LEAST_BITS, 8.0)}
    variants = tuple(Variant("coded", U8, (("bits", bits),)) for bits in (1.0, 1.5, 2.0, 2.5, 3.0))

    def capacity(self, shape: WeightShape, variant: Variant) -> int:
        """Bytes of the coded levels."""
        return ceil(shape.count * variant.parameter("bits") / 8)

    def quantise(self, weight: FloatArray, bias: FloatArray, variant: Variant, groups: int = 1) -> EncodedLayer:
        shape = WeightShape(weight.shape[0], weight.shape[1] * groups, (weight.shape[2], weight.shape[3]), groups)
        rows = _rows(np.asarray(weight, np.float64))
        levels, scale = quantise_at_rate(rows, self.capacity(shape, variant), self.top)
        return EncodedLayer(variant, shape, bias, levels=_tensor(levels, shape), numbers=self.numbers).rescaled(scale)

    def in_memory(self, variant: Variant) -> Variant:
        return Variant(self.loaded, variant.activation)

    def grid(self, layer: EncodedLayer) -> Grid:
        """What the decoder takes; which of these fit together, `fits` and `shrink` say."""
        return Grid.of(-self.top, 1, self.top)

    # -- for those who choose levels themselves -------------------------------------------------------------------

    def fits(self, levels: NDArray[np.int8], variant: Variant) -> bool:
        """Whether levels [out, in / groups, height, width] can be packed at the variant's rate. Exact: it codes them."""
        size = ceil(levels.size * variant.parameter("bits") / 8)
        return len(encode(_rows(levels), lanes_for(len(levels), size))) <= size

    def code_lengths(self, levels: NDArray[np.int8], variant: Variant) -> NDArray[np.float64]:
        """Bits of each level in the company of `levels` [out, in / groups, height, width], by weight and level: float64
        [out, in / groups, height, width, 2 top + 1], entry top + l being that of level l. For `coded` that is 255
        numbers per weight; `class_lengths` gives the same by class of activity."""
        classes, lengths = self.class_lengths(levels, variant)
        return np.asarray(lengths[classes])

    def class_lengths(
        self, levels: NDArray[np.int8], variant: Variant
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The class of activity of every weight, shaped as `levels`, and the bits of each level by class, float64
        [classes, 2 top + 1], entry top + l being that of level l. Levels that do not occur have the bits of rare ones."""
        classes, bits, _ = self.counted(levels, variant)
        return classes, np.concatenate([bits[:, :0:-1], bits], 1)

    def counted(
        self, levels: NDArray[np.int8], variant: Variant
    ) -> tuple[NDArray[np.int64], NDArray[np.float64], float]:
        """The same classes, the bits by class and magnitude [classes, top + 1], and about how many bytes the levels take."""
        if not levels.any():
            raise UsageError("all levels are zero, so that nothing can be said of others' bits; give one that is not")
        out, inputs, height, width = levels.shape
        size = ceil(levels.size * variant.parameter("bits") / 8)
        census = Census(_rows(levels), lanes_for(out, size))
        classes = census.classes.reshape(out, height, width, inputs).transpose(0, 3, 1, 2)
        return classes, census.bits(self.top), census.size

    def shrink(
        self,
        levels: NDArray[np.int8],
        variant: Variant,
        ideal: NDArray[np.floating] | None = None,
        importance: NDArray[np.floating] | None = None,
    ) -> NDArray[np.int8]:
        """Levels [out, in / groups, height, width] that fit the variant's rate: as given where these do, else with the
        cheapest moved towards zero, least harm per bit that is saved.

        ideal: real numbers that the levels were rounded from, in steps (default: the levels); importance [out]: what a
        squared step of each output channel is worth, such as its squared scale (default: all the same)."""
        exact = levels if ideal is None else ideal
        worth = np.ones(len(levels)) if importance is None else np.asarray(importance, np.float64)
        out, inputs, height, width = levels.shape
        size = ceil(levels.size * variant.parameter("bits") / 8)
        found = shrink(_rows(levels), size, _rows(np.asarray(exact, np.float64)), worth)
        return np.ascontiguousarray(found.reshape(out, height, width, inputs).transpose(0, 3, 1, 2))

    # -- bytes ----------------------------------------------------------------------------------------------------

    def levels_of(self, rows: FloatArray, variant: Variant) -> tuple[NDArray[np.int8], FloatArray]:
        capacity = ceil(rows.size * variant.parameter("bits") / 8)
        levels, scale = quantise_at_rate(rows.astype(np.float64), capacity, self.top)
        return levels, scale.astype(np.float32)

    def extra_bytes(self, shape: WeightShape, variant: Variant) -> int:
        return self.capacity(shape, variant)

    def pack_extra(self, layer: EncodedLayer) -> bytes:
        """Raises UsageError for levels that do not fit the rate."""
        capacity = self.capacity(layer.shape, layer.variant)
        data = encode(_rows(layer.levels), lanes_for(layer.shape.out_channels, capacity))
        if len(data) > capacity:
            raise UsageError(
                f"the levels of a layer of {layer.shape} take {len(data)} bytes in entropy code; {layer.variant} has "
                f"{capacity}: move some towards zero (`shrink`) or choose a higher rate"
            )
        return data.ljust(capacity, b"\0")

    def unpack_extra(self, data: bytes, layer: EncodedLayer) -> EncodedLayer:
        shape = layer.shape
        levels = decode(data, shape.out_channels, shape.reduction)
        largest = int(np.abs(levels.astype(np.int64)).max())
        if largest > self.top:
            raise FileFormatError(f"a level of {largest} in a {self.name} layer; its levels reach to {self.top}")
        return replace(layer, levels=_tensor(levels, shape))


class CodedTernary(Coded):
    name: ClassVar[str] = "codedternary"
    number: ClassVar[int] = 9
    top: ClassVar[int] = 1
    loaded: ClassVar[str] = "ternary"
    sign_planes: ClassVar[int] = 2
    variants = tuple(Variant("codedternary", U8, (("bits", bits),)) for bits in (0.65, 1.0))

    def resident_code_bytes(self, count: int) -> int:
        return packed_size(count, 2)


def _rows(tensor: NDArray[Number]) -> NDArray[Number]:
    """[out, K] of a weight tensor, in the order of coding."""
    return np.ascontiguousarray(tensor.transpose(0, 2, 3, 1)).reshape(len(tensor), -1)


def _tensor(levels: NDArray[np.int8], shape: WeightShape) -> NDArray[np.int8]:
    height, width = shape.kernel
    inputs = shape.in_channels // shape.groups
    return np.ascontiguousarray(levels.reshape(shape.out_channels, height, width, inputs).transpose(0, 3, 1, 2))
