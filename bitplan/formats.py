"""Which activation formats each value of a network is kept in, as a consequence of the layers' variants.

The rule, the same for the planner, the simulation and the artifact:

- a layer reads its input, and its residual if it has one, in its variant's activation format;
- a network output, and a value that nothing reads, is kept in f32;
- an operation without weights reads all its inputs in u8 if its own value is kept in u8 only, else in f32
  (softmax always reads f32);
- a value is kept in every format that one of its readers reads. A value needed in both is written as f32 by its
  node, and converted to u8 in a step of its own that all u8 readers share.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bitplan.network import Network, Softmax
from bitplan.variant import F32, U8, Variant


@dataclass(frozen=True, slots=True)
class Range:
    """How a value is held in u8: x = scale * (q - zero_point), q = clamp(round(x / scale) + zero_point, 0, 255).
    Rounding is to nearest, ties to even; `scale` is a positive float32 number."""

    scale: float
    zero_point: int

    def __post_init__(self) -> None:
        if not (0 < self.scale < float("inf")) or not 0 <= self.zero_point <= 255:
            raise ValueError(f"a range needs a positive scale and a zero point in 0..255, not {self}")


@dataclass(frozen=True, slots=True)
class Formats:
    """`kept[value]`: {"f32"}, {"u8"} or both; `read[node]`: the format in which the node reads its inputs
    (nodes without inputs are absent)."""

    kept: Mapping[str, frozenset[str]]
    read: Mapping[str, str]


def derive_formats(network: Network, variants: Mapping[str, Variant]) -> Formats:
    """Applies the rule above to one variant per layer."""
    needed: dict[str, set[str]] = {node.name: set() for node in network}
    for name in network.outputs:
        needed[name].add(F32)
    read: dict[str, str] = {}
    for node in reversed(network.nodes):
        needed[node.name] = needed[node.name] or {F32}
        if not node.inputs:
            continue
        if node.name in variants:
            form = variants[node.name].activation
        else:
            form = U8 if needed[node.name] == {U8} and not isinstance(node.op, Softmax) else F32
        read[node.name] = form
        for name in node.inputs:
            needed[name].add(form)
    return Formats({name: frozenset(forms) for name, forms in needed.items()}, read)
