"""What an encoding is: a small value object that stores a layer's weights in few bits.

Every encoding but float32 gives each weight a *level*, a small integer, and each output channel a *scale*:
w ~ scale[o] * level. In APB all levels have one magnitude, but those of a few weights that are kept apart.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from bitplan.encodings.channel_numbers import HALVES, ChannelNumbers, round_to_half
from bitplan.network import WeightShape
from bitplan.variant import F32, FLOAT32, U1, U2, U4, U8, Variant

FloatArray = NDArray[np.float32]

NO_POSITIONS = np.zeros(0, np.int64)
NO_VALUES = np.zeros(0, np.float32)
NO_CODE = np.zeros(0, np.uint8)


@dataclass(frozen=True)
class EncodedLayer:
    """A layer's weights and bias as the artifact stores them, already rounded to what the file can hold.

    levels: int8 [out, in / groups, height, width] (of floats: empty); scale, bias: float32 [out];
    kept_positions: places (in the C-order weight, ascending) of the weights whose levels are stored one by one;
    values: float32 weight of a layer of floats (else empty);
    code: the stored bytes of an encoding whose levels follow from them, but not they from its levels (xor; else empty);
    numbers: how the file holds scale and bias (not of a layer of floats).
    """

    variant: Variant
    shape: WeightShape
    bias: FloatArray
    scale: FloatArray = field(default_factory=lambda: NO_VALUES)
    levels: NDArray[np.int8] = field(default_factory=lambda: np.zeros(0, np.int8))
    kept_positions: NDArray[np.int64] = field(default_factory=lambda: NO_POSITIONS)
    values: FloatArray = field(default_factory=lambda: NO_VALUES)
    code: NDArray[np.uint8] = field(default_factory=lambda: NO_CODE)
    numbers: ChannelNumbers = HALVES

    @cached_property
    def weight(self) -> FloatArray:
        """The weight that the runtime computes with, float32 [out, in / groups, height, width]."""
        if self.variant.activation == F32:
            return self.values
        return self.levels * self.scale.reshape(-1, 1, 1, 1)

    def corrected(self, gain: FloatArray, bias: FloatArray) -> EncodedLayer:
        """The same codes with scale multiplied by `gain` [out] (positive) and the given bias [out]. Pruned floats are
        multiplied themselves; float32 layers keep their scale of one and take the bias only if `gain` is one."""
        if self.variant == FLOAT32:
            if not np.all(gain == 1):
                raise ValueError("a float32 layer has no scale to correct")
            return replace(self, bias=np.asarray(bias, np.float32))
        if self.variant.activation == F32:
            values = round_to_half(self.values * gain.reshape(-1, 1, 1, 1))
            return replace(self, values=values, bias=np.asarray(bias, np.float32))
        return self.rescaled(self.scale * gain, bias)

    def rescaled(self, scale: NDArray[np.floating], bias: NDArray[np.floating] | None = None) -> EncodedLayer:
        """The same codes with the nearest scale and bias [out] (default: its own) that the file can hold. Not for a layer of
        floats."""
        scales, biases = self.numbers.rounded(scale, self.bias if bias is None else bias, self.live)
        return replace(self, scale=scales, bias=biases)

    @property
    def live(self) -> NDArray[np.bool_]:
        """Whether a channel has a level that is not zero, [out]."""
        return np.asarray(self.levels.reshape(len(self.levels), -1).any(1))


class Encoding(ABC):
    """One way to store weights. Instances are stateless; `variants` is what its name alone stands for on a menu."""

    name: ClassVar[str]
    number: ClassVar[int]
    """The number of how an artifact holds its layers; never reused for another way."""
    variants: tuple[Variant, ...]
    on_default_menu: ClassVar[bool] = True
    """Whether its variants are planned with where nothing is asked for."""
    parameters: ClassVar[Mapping[str, tuple[float, float]]] = {}
    """The parameters that a variant must give, each with its legal values low < value <= high."""
    activations: ClassVar[tuple[str, ...]] = (U8, U4, U2, U1)
    """The activation formats that its layers can read, the usual one first."""
    tolerance: ClassVar[float] = 1e-5
    """Runtime against reference: max|a - b| <= tolerance * max|b|."""

    @property
    def stored_as(self) -> str:
        """What the runtime calls `number`: the encoding itself, unless several are held in the same way."""
        return self.name

    def supports(self, shape: WeightShape) -> bool:
        """Whether a layer of this shape can be stored (whether it can read a format: `compute.supports_format`)."""
        return True

    @abstractmethod
    def quantise(self, weight: FloatArray, bias: FloatArray, variant: Variant, groups: int = 1) -> EncodedLayer:
        """Rounds a float32 weight [out, in / groups, height, width] and bias [out] to the nearest storable layer,
        in the sense of the squared error of the weight."""

    @abstractmethod
    def pack(self, layer: EncodedLayer) -> bytes:
        """The layer's bytes in the artifact, exactly `size_bytes` of them (layout: kernels/FORMAT.md)."""

    @abstractmethod
    def unpack(self, data: bytes, shape: WeightShape, variant: Variant) -> EncodedLayer:
        """The inverse of `pack`. Raises FileFormatError where `data` cannot be a packed layer."""

    @abstractmethod
    def size_bytes(self, shape: WeightShape, variant: Variant) -> int:
        """Bytes in the artifact, with scales, bias and padding."""

    @abstractmethod
    def resident_bytes(self, shape: WeightShape, variant: Variant, kernel: str | None = None) -> int:
        """Bytes the runtime keeps in memory for this layer under one of `kernels_for(variant)`; without a kernel,
        under the one that keeps most."""

    def in_memory(self, variant: Variant) -> Variant:
        """The variant whose layers the runtime holds and runs in the place of this one's: itself but where a file is
        decoded at load. What was measured of its latency holds for both."""
        return variant

    def full_precision_weights(self, shape: WeightShape, variant: Variant) -> int:
        """Weights that are stored one by one, not in the encoding's few bits: all of float32, the kept ones of APB and of
        pruned floats."""
        return 0

    def record_number(self, layer: EncodedLayer) -> int:
        """What the artifact's record of the weight says beside its size: weights kept by APB and by pruning, the rate of
        xor."""
        return len(layer.kept_positions)


def padded(size: int) -> int:
    """Every packed layer fills a multiple of eight bytes, so that sizes add up whatever the order."""
    return -size % 8 + size
