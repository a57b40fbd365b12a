"""Compute kernels: the ways in which a layer of some variant can be multiplied, and the numbers of these ways.

    floats   f32 activations x f32 weights
    bytes    the weights' codes are decoded to bytes, the activations' codes taken (or unpacked) as bytes
    bits     bit-serial: XOR, AND and population count over planes of bits; weights of one or two signs
    lookup   sums of four activations looked up by the signs of four weights

Every kernel computes the same numbers; which one is fastest is measured on the device.
"""

from __future__ import annotations

from bitplan.network import WeightShape
from bitplan.variant import F32, U8, Variant

FLOATS, BYTES, BITS, LOOKUP = "floats", "bytes", "bits", "lookup"
KERNELS = (FLOATS, BYTES, BITS, LOOKUP)
"""In the order of their numbers in an artifact; append only."""

SIGN_ENCODINGS = ("ternary", "binary", "apb", "codedternary", "xor", "apb4")
"""Encodings whose levels are signs, sums of two signs, or signs and a few exceptions."""


def kernels_for(variant: Variant) -> tuple[str, ...]:
    """The kernels that can run a layer of this variant; the first is taken where nothing was measured."""
    if variant.activation == F32:
        return (FLOATS,)
    if variant.activation == U8 or variant.encoding not in SIGN_ENCODINGS:
        return (BYTES,)
    return (BITS, LOOKUP, BYTES)


def supports_format(shape: WeightShape, activation: str) -> bool:
    """Whether a layer of this shape can read its input in this format: below 8 bits, layers without groups can."""
    return activation in (F32, U8) or shape.groups == 1
