"""Which activation formats each value of a network is kept in, as a consequence of the layers' variants.

The rule, the same for the planner, the simulation and the artifact:

- a layer reads its input in its variant's activation format, and its residual, if it has one, in f32 or u8
  (`residual_format`);
- a network output, and a value that nothing reads, is kept in f32;
- an operation without weights reads all its inputs in u8 if its own value is kept in u8 only, else in f32
  (softmax always reads f32);
- a value is kept in every format that one of its readers reads. A layer writes all of them at once. A node without
  weights writes u8 if that is the only one, else f32 (which the value is then kept in too), and every other format is
  converted from it in a step of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from bitplan.network import Conv2d, Linear, Network, Node, Softmax
from bitplan.variant import BITS, F32, FORMATS, U8, Variant


@dataclass(frozen=True, slots=True)
class Range:
    """How a value is held in codes: x = scale * (q - zero_point), with `scale` a positive float32 number and

    u8, u4, u2   q = clamp(round(x / scale) + zero_point, 0, 2^bits - 1), ties to even, zero_point whole
    u1           q = 1 where x > scale * (0.5 - zero_point), else 0; zero_point 0 (levels 0 and scale), 1, or 0.5
                 (levels -scale / 2 and scale / 2)
    """

    scale: float
    zero_point: float

    def __post_init__(self) -> None:
        if not (0 < self.scale < float("inf")) or not 0 <= self.zero_point <= 255 or self.zero_point * 2 % 1:
            raise ValueError(f"a range needs a positive scale and a zero point in 0..255, not {self}")
        if self.zero_point % 1 and self.zero_point != 0.5:
            raise ValueError(f"a zero point is whole or 0.5, not {self.zero_point}")

    @property
    def padding(self) -> int:
        """The code that a convolution pads with: that of zero, or the lower level where zero is none."""
        return int(self.zero_point)

    @property
    def padding_value(self) -> float:
        """The number that a convolution pads with: zero where a code stands for it."""
        return self.scale * (self.padding - self.zero_point)

    def threshold(self) -> np.float32:
        """Of u1: what lies above it becomes 1."""
        return np.float32(np.float32(self.scale) * np.float32(0.5 - self.zero_point))


Ranges = Mapping[str, Mapping[str, Range]]
"""By value and format."""


@dataclass(frozen=True, slots=True)
class Formats:
    """`kept[value]`: the formats it is kept in; `read[node]`: the format in which the node reads its input
    (nodes without inputs are absent)."""

    kept: Mapping[str, frozenset[str]]
    read: Mapping[str, str]


def residual_format(activation: str) -> str:
    """The format in which a layer of this activation format reads its residual."""
    return F32 if activation == F32 else U8


def in_order(formats: frozenset[str]) -> tuple[str, ...]:
    """Formats in the order in which they lie in memory."""
    return tuple(form for form in FORMATS if form in formats)


def top_code(form: str) -> int:
    """The largest code of a format: 255, 15, 3 or 1."""
    return int(2 ** BITS[form] - 1)


def kept_formats(node: Node, read: frozenset[str]) -> frozenset[str]:
    """The formats a node's value is kept in, from those in which it is read (f32 included for an output)."""
    if not read:
        return frozenset([F32])
    if isinstance(node.op, Conv2d | Linear) or read == {U8}:
        return read
    return read | {F32}


def derive_formats(network: Network, variants: Mapping[str, Variant]) -> Formats:
    """Applies the rule above to one variant per layer."""
    needed: dict[str, set[str]] = {node.name: set() for node in network}
    for name in network.outputs:
        needed[name].add(F32)
    kept: dict[str, frozenset[str]] = {}
    read: dict[str, str] = {}
    for node in reversed(network.nodes):
        kept[node.name] = kept_formats(node, frozenset(needed[node.name]))
        if not node.inputs:
            continue
        if node.name in variants:
            read[node.name] = variants[node.name].activation
            needed[node.inputs[0]].add(read[node.name])
            for residual in node.inputs[1:]:
                needed[residual].add(residual_format(read[node.name]))
            continue
        read[node.name] = U8 if kept[node.name] == {U8} and not isinstance(node.op, Softmax) else F32
        for name in node.inputs:
            needed[name].add(read[node.name])
    return Formats({node.name: kept[node.name] for node in network}, read)
