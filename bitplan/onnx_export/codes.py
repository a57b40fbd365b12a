"""A value that is read in codes: what is left of it, by QuantizeLinear and DequantizeLinear."""

from __future__ import annotations

import numpy as np

from bitplan.formats import Range, top_code
from bitplan.network import Activation
from bitplan.onnx_export.graph import Graph
from bitplan.variant import U1, U8


def quantised(graph: Graph, value: str, name: str, held: Range, form: str) -> str:
    """The name of the value behind its codes. ONNX has 8-bit codes; those of u4 and u2 are uint8 codes that reach to 15 and 3,
    and u1 is a comparison."""
    scale = np.float32(held.scale)
    if form == U1:
        high = graph.add("Greater", [value, graph.floats(held.threshold(), f"{name}.threshold")], f"{name}.above")
        levels = [graph.floats(scale * np.float32(code - held.zero_point), f"{name}.level{code}") for code in (1, 0)]
        return graph.add("Where", [high, *levels], f"{name}.{form}")
    if form != U8:
        bounds = [scale * (code - held.zero_point) for code in (0, top_code(form))]
        ends = [graph.floats(bound, f"{name}.{end}") for bound, end in zip(bounds, ("low", "high"), strict=True)]
        value = graph.add("Clip", [value, *ends], f"{name}.{form}.clip")
    parameters = [
        graph.floats(scale, f"{name}.{form}.scale"),
        graph.constant(np.array(held.zero_point, np.uint8), f"{name}.{form}.zero_point"),
    ]
    codes = graph.add("QuantizeLinear", [value, *parameters], f"{name}.{form}.codes")
    return graph.add("DequantizeLinear", [codes, *parameters], f"{name}.{form}")


def clamped_anyway(activation: Activation, held: Range) -> bool:
    """Whether codes of u8 hold no number that a clamp would change, so that it can be left out before them."""
    if activation.kind != "clamp":
        return not activation
    lowest, highest = (bound / held.scale + held.zero_point for bound in (activation.low, activation.high))
    return bool(np.round(lowest) <= 0 and np.round(highest) >= top_code(U8))
