"""What each operation without weights is in ONNX, and the activations fused behind operations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from bitplan.errors import UnsupportedError
from bitplan.network import (
    Activate,
    Activation,
    Add,
    AveragePool,
    Concat,
    MaxPool,
    Mean,
    Mul,
    Node,
    Pad,
    Padding,
    Permute,
    Reshape,
    ScaleShift,
    Slice,
    Softmax,
    Weights,
)
from bitplan.onnx_export.graph import Graph


def activated(graph: Graph, value: str, activation: Activation, name: str, by_bounds: bool = False) -> str:
    """activation(value). `by_bounds`: a clamp as Max and Min, which ONNX Runtime does not merge into conversions."""
    match activation.kind:
        case "clamp" if by_bounds:
            for kind, bound in (("Max", activation.low), ("Min", activation.high)):
                if np.isfinite(bound):
                    value = graph.add(kind, [value, graph.floats(bound, f"{name}.bound")], f"{name}.{kind.lower()}")
            return value
        case "clamp" if activation.low == 0 and activation.high == np.inf:
            return graph.add("Relu", [value], f"{name}.relu")
        case "clamp":
            ends = [
                graph.floats(bound, f"{name}.{end}") if np.isfinite(bound) else ""
                for bound, end in ((activation.low, "low"), (activation.high, "high"))
            ]
            return graph.add("Clip", [value, *ends], f"{name}.clip")
        case "hard_swish":
            return graph.add("HardSwish", [value], f"{name}.hard_swish")
        case "silu":
            return graph.add("Mul", [value, graph.add("Sigmoid", [value], f"{name}.sigmoid")], f"{name}.silu")
        case "sigmoid":
            return graph.add("Sigmoid", [value], f"{name}.sigmoid")
        case "hard_sigmoid":
            return graph.add("HardSigmoid", [value], f"{name}.hard_sigmoid", alpha=1 / 6, beta=0.5)
    return value


def operation(graph: Graph, node: Node, inputs: Sequence[str], weights: Weights) -> str:
    """The value of a node without a weight tensor, before its activation.
    Raises UnsupportedError for a window that ONNX cannot pad."""
    x, name, op = inputs[0], node.name, node.op
    match op:
        case Activate():
            return x
        case Add() | Mul():
            return graph.add(type(op).__name__, inputs, name)
        case Concat():
            return graph.add("Concat", inputs, name, axis=1)
        case ScaleShift():
            size = (-1, 1, 1) if len(node.shape) == 3 else (-1,)
            scale, shift = (
                graph.floats(weights[f"{name}.{k}"].reshape(size), f"{name}.{k}") for k in ("scale", "shift")
            )
            return graph.add("Add", [graph.add("Mul", [x, scale], f"{name}.scaled"), shift], name)
        case MaxPool():
            x = _room(graph, x, op, name)
            window: dict[str, Any] = {"kernel_shape": op.kernel, "strides": op.stride, "dilations": op.dilation}
            window["pads"] = onnx_pads(op.padding) if x == inputs[0] else (0, 0, 0, 0)
            return graph.add("MaxPool", [x], name, **window)
        case AveragePool():
            return graph.add("AveragePool", [_padded_mean(graph, x, op, name)], name, **_mean_window(op))
        case Mean():
            made = graph.add("GlobalAveragePool", [x], f"{name}.pooled" if not op.keep else name)
            return made if op.keep else graph.add("Flatten", [made], name, axis=1)
        case Pad():
            (top, bottom, left, right), (before, behind) = op.padding, op.channels
            images = len(node.shape) == 3
            around = [0, before, top, left, 0, behind, bottom, right] if images else _last_axis(node, before, behind)
            return graph.add(
                "Pad", [x, graph.integers(around, f"{name}.pads"), graph.floats(op.value, f"{name}.value")], name
            )
        case Slice():
            starts, ends, steps = zip(*op.ranges, strict=True)
            lists = {"starts": starts, "ends": ends, "axes": range(1, 1 + len(op.ranges)), "steps": steps}
            return graph.add("Slice", [x, *(graph.integers(list(v), f"{name}.{k}") for k, v in lists.items())], name)
        case Reshape():
            return graph.add("Reshape", [x, graph.integers([0, *node.shape], f"{name}.shape")], name)
        case Permute():
            return graph.add("Transpose", [x], name, perm=[0, *(axis + 1 for axis in op.order)])
        case Softmax():
            return graph.add("Softmax", [x], name, axis=1 if len(node.shape) == 3 else -1)
    raise UnsupportedError(f"node {name!r} ({type(op).__name__}) has no counterpart in ONNX")


def onnx_pads(padding: Padding) -> tuple[int, int, int, int]:
    """(top, bottom, left, right) in ONNX's order."""
    top, bottom, left, right = padding
    return top, left, bottom, right


def _last_axis(node: Node, before: int, behind: int) -> list[int]:
    """The pads of all axes of a value that is no image: those of its last."""
    others = [0] * len(node.shape)
    return [*others, before, *others, behind]


def _room(graph: Graph, x: str, op: MaxPool, name: str) -> str:
    """ONNX Runtime pads less than a kernel; more is padded with what never wins, before."""
    (height, width), (top, bottom, left, right) = op.kernel, op.padding
    if max(top, bottom) < height and max(left, right) < width:
        return x
    pads = graph.integers([0, 0, top, left, 0, 0, bottom, right], f"{name}.pads")
    return graph.add("Pad", [x, pads, graph.floats(-np.inf, f"{name}.lowest")], f"{name}.padded")


def _fits(op: AveragePool) -> bool:
    (height, width), (top, bottom, left, right) = op.kernel, op.padding
    return max(top, bottom) < height and max(left, right) < width


def _padded_mean(graph: Graph, x: str, op: AveragePool, name: str) -> str:
    if _fits(op) or not any(op.padding):
        return x
    if not op.count_padding:
        raise UnsupportedError(f"the pool {name!r} pads by a whole window, which ONNX Runtime does not take")
    pads = graph.integers([0, 0, op.padding[0], op.padding[2], 0, 0, op.padding[1], op.padding[3]], f"{name}.pads")
    return graph.add("Pad", [x, pads], f"{name}.padded")


def _mean_window(op: AveragePool) -> dict[str, Any]:
    pads = onnx_pads(op.padding) if _fits(op) else (0, 0, 0, 0)
    return {"kernel_shape": op.kernel, "strides": op.stride, "pads": pads, "count_include_pad": int(op.count_padding)}
