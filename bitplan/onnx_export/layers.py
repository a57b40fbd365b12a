"""A convolution or linear layer in ONNX: int8 and int4 weights as integers behind DequantizeLinear, every other encoding as
the float32 weights that its codes stand for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitplan.encodings import EncodedLayer
from bitplan.formats import Range
from bitplan.network import Conv2d, Node
from bitplan.onnx_export.graph import Graph
from bitplan.onnx_export.operations import onnx_pads

INT8, INT4, FLOAT32 = "int8", "uint4", "float32"
"""How ONNX stores a layer's weights."""
FOUR_BITS = ("packed", "int8")
"""What becomes of int4: `packed` codes of 4 bits, or int8, which ONNX Runtime multiplies faster."""
LARGEST_BIAS = 2**30
"""Codes of a bias at most, so that sums of products stay within 32 bits."""


def stored_as(layer: EncodedLayer, four_bits: str) -> str:
    """How ONNX holds the weights of a layer: exactly its levels, or what they stand for."""
    encoding = layer.variant.encoding
    if encoding == "int8":
        return INT8
    if encoding == "int4":
        return INT4 if four_bits == "packed" else INT8
    return FLOAT32


def layer(
    graph: Graph, node: Node, encoded: EncodedLayer, x: str, held: Range | None, four_bits: str, in_bytes: bool
) -> str:
    """The layer's value before residual and activation. `held`: the range of its input's codes, None for f32; `in_bytes`: whether
    input and value are read in u8 alone, so that ONNX Runtime's integer kernels may run it."""
    kind = stored_as(encoded, four_bits)
    scale = channel_scales(encoded, held) if kind == INT8 else encoded.scale
    weight = _weight(graph, node, encoded, kind, scale)
    step = scale * np.float32(held.scale) if kind == INT8 and in_bytes and held else None
    bias = _bias(graph, node, encoded.bias, step)
    if isinstance(node.op, Conv2d):
        return _convolution(graph, node, node.op, x, weight, bias, held)
    if len(node.shape) == 1:
        return graph.add("Gemm", [x, weight, bias], node.name, transB=1)
    turned = graph.add("Transpose", [weight], f"{node.name}.weight.turned", perm=[1, 0])
    product = graph.add("MatMul", [x, turned], f"{node.name}.product")
    return graph.add("Add", [product, bias], node.name)


def channel_scales(encoded: EncodedLayer, held: Range | None) -> NDArray[np.float32]:
    """The scales of int8 weights, positive where a channel is all zeros too: its bias has to be held in their steps."""
    scale = encoded.scale.copy()
    empty = scale == 0
    fine = np.abs(encoded.bias) / np.float32(LARGEST_BIAS / 2**10) / np.float32(held.scale if held else 1.0)
    scale[empty] = np.maximum(fine[empty], np.float32(1e-12))
    return scale


def _weight(graph: Graph, node: Node, encoded: EncodedLayer, kind: str, scale: NDArray[np.float32]) -> str:
    linear = not isinstance(node.op, Conv2d)
    name = f"{node.name}.weight"
    if kind == FLOAT32:
        values = encoded.weight
        return graph.floats(values.reshape(len(values), -1) if linear else values, name)
    levels = (
        np.where((encoded.scale == 0).reshape(-1, 1, 1, 1), np.int8(0), encoded.levels)
        if kind == INT8
        else encoded.levels
    )
    levels = levels.reshape(len(levels), -1) if linear else levels
    if kind == INT8:
        stored = [graph.constant(levels.astype(np.int8), f"{name}.levels"), graph.floats(scale, f"{name}.scale")]
        return graph.add("DequantizeLinear", stored, name, axis=0)
    # Levels are 2 c - 15: ONNX's zero points are whole, so that the codes stand for 2 c - 16 and one step is added.
    codes = graph.constant_of_4_bits((levels.astype(np.int64) + 15) >> 1, f"{name}.codes")
    middle = graph.constant_of_4_bits(np.full(len(levels), 8), f"{name}.zero_point")
    even = graph.add(
        "DequantizeLinear", [codes, graph.floats(2 * scale, f"{name}.scale"), middle], f"{name}.even", axis=0
    )
    step = graph.floats(scale.reshape(-1, *(1 for _ in levels.shape[1:])), f"{name}.step")
    return graph.add("Add", [even, step], name)


def _bias(graph: Graph, node: Node, bias: NDArray[np.float32], step: NDArray[np.float32] | None) -> str:
    """32-bit codes of `step` (s_x s_w, which integer kernels want), else of steps so fine that nothing is lost. Never plain
    floats: ONNX Runtime would take them for leave to round float32 weights to 8 bits per tensor."""
    if step is None or (np.abs(bias.astype(np.float64) / step) > LARGEST_BIAS).any():
        step = np.maximum(np.abs(bias) / np.float32(LARGEST_BIAS), np.float32(1e-30))
    name = f"{node.name}.bias"
    codes = np.round(bias.astype(np.float64) / step).astype(np.int32)
    stored = [graph.constant(codes, f"{name}.codes"), graph.floats(step, f"{name}.scale")]
    return graph.add("DequantizeLinear", stored, name, axis=0)


def _convolution(graph: Graph, node: Node, op: Conv2d, x: str, weight: str, bias: str, held: Range | None) -> str:
    pads: Sequence[int] = onnx_pads(op.padding)
    if held is not None and held.padding_value != 0 and any(pads):  # signs, which have no zero
        where = graph.integers([0, 0, *pads[:2], 0, 0, *pads[2:]], f"{node.name}.pads")
        x = graph.add(
            "Pad", [x, where, graph.floats(held.padding_value, f"{node.name}.padding")], f"{node.name}.padded"
        )
        pads = (0, 0, 0, 0)
    window: dict[str, Any] = {
        "kernel_shape": op.kernel,
        "strides": op.stride,
        "pads": pads,
        "dilations": op.dilation,
        "group": op.groups,
    }
    return graph.add("Conv", [x, weight, bias], node.name, **window)
