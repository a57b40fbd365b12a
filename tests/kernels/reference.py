"""A plain interpreter of encoded networks: FORMAT.md and network.py in numpy.

Layers on codes and the conversions from f32 give the runtime's very bits: integers, then float32 operations in the
contract's order. Everything else is computed in float64.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitplan.encodings import EncodedLayer
from bitplan.formats import Formats, Range, Ranges, derive_formats, residual_format, top_code
from bitplan.network import (
    Activate,
    Activation,
    Add,
    AveragePool,
    Concat,
    Conv2d,
    Input,
    Linear,
    MaxPool,
    Mean,
    Mul,
    Network,
    Node,
    Pad,
    Padding,
    Pair,
    Permute,
    Preprocessing,
    Reshape,
    ScaleShift,
    Slice,
    Softmax,
    Weights,
)
from bitplan.variant import F32, U1

Array = NDArray[np.float64]
Codes = NDArray[np.int64]


def quantise(x: Array, held: Range, form: str) -> Codes:
    """Codes of x, computed in float32 like the runtime's own."""
    single = x.astype(np.float32)
    if form == U1:
        return (single > held.threshold()).astype(np.int64)
    ratio = np.rint(single * (np.float32(1) / np.float32(held.scale)))
    return (np.clip(ratio, -1e6, 1e6) + held.zero_point).clip(0, top_code(form)).astype(np.int64)


def dequantise(q: Codes, held: Range) -> Array:
    return np.float64(np.float32(held.scale)) * (q - held.zero_point).astype(np.float64)


def activate(y: Array, activation: Activation) -> Array:
    match activation.kind:
        case "clamp":
            return np.clip(y, activation.low, activation.high)
        case "hard_sigmoid":
            return np.clip(y + 3, 0, 6) / 6
        case "hard_swish":
            return y * np.clip(y + 3, 0, 6) / 6
        case "sigmoid":
            return 1 / (1 + np.exp(-y))
        case "silu":
            return y / (1 + np.exp(-y))
        case _:
            return y


def windows(x: Array, kernel: Pair, stride: Pair, padding: Padding, dilation: Pair, fill: float) -> Array:
    """[N, C, H', W', kernel height, kernel width] of x [N, C, H, W], padded with `fill`."""
    top, bottom, left, right = padding
    x = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=fill)
    extent = [dilation[i] * (kernel[i] - 1) + 1 for i in (0, 1)]
    view = np.lib.stride_tricks.sliding_window_view(x, (extent[0], extent[1]), (2, 3))
    return np.asarray(view[:, :, :: stride[0], :: stride[1], :: dilation[0], :: dilation[1]])


def convolve(x: Array, weight: Array, op: Conv2d, fill: float = 0.0) -> Array:
    """Grouped cross-correlation of x [N, C, H, W] with weight [O, C / groups, h, w], padded with `fill`."""
    view = windows(x, op.kernel, op.stride, op.padding, op.dilation, fill)
    n, _, height, width = view.shape[:4]
    view = view.reshape(n, op.groups, -1, height, width, *op.kernel)
    grouped = weight.reshape(op.groups, -1, *weight.shape[1:])
    return np.einsum("ngchwij,gocij->ngohw", view, grouped, optimize=True).reshape(n, -1, height, width)


def preprocess(x: NDArray[np.generic], preprocessing: Preprocessing) -> Array:
    if not preprocessing.mean or x.ndim != 4:
        return x.astype(np.float64)
    mean = np.array(preprocessing.mean, np.float32)[:, None, None]
    std = np.array(preprocessing.std, np.float32)[:, None, None]
    return ((x.astype(np.float32) - mean) / std).astype(np.float64)


@dataclass
class Reference:
    """Runs `network` with encoded `layers`; `weights` holds scale and shift of ScaleShift nodes."""

    network: Network
    layers: Mapping[str, EncodedLayer]
    weights: Weights
    ranges: Ranges

    def __call__(self, inputs: Mapping[str, NDArray[np.generic]]) -> dict[str, Array]:
        """Outputs by name."""
        values = self.values(inputs)
        return {name: values[name, F32] for name in self.network.outputs}

    def values(self, inputs: Mapping[str, NDArray[np.generic]]) -> dict[tuple[str, str], Array]:
        """Every value in every format that it is kept in, as real numbers (of codes: dequantised)."""
        formats: Formats = derive_formats(self.network, {name: layer.variant for name, layer in self.layers.items()})
        values: dict[tuple[str, str], Array] = {}
        codes: dict[tuple[str, str], Codes] = {}
        for node in self.network:
            if isinstance(node.op, Input):
                y = preprocess(inputs[node.name], self.network.preprocessing)
            elif node.name in self.layers:
                form = formats.read[node.name]
                first, others = (node.inputs[0], form), [(name, residual_format(form)) for name in node.inputs[1:]]
                residual = [values[key] for key in others]
                if form == F32:
                    y = self.float_layer(node, values[first], residual)
                else:
                    y = self.code_layer(node, codes[first], self.ranges[node.inputs[0]][form], residual)
            else:
                y = self.compute(node, [values[name, formats.read[node.name]] for name in node.inputs])
            assert y.shape[1:] == node.shape, (node, y.shape)
            y = y.astype(np.float32).astype(np.float64)
            for form in formats.kept[node.name]:
                if form == F32:
                    values[node.name, F32] = y
                else:
                    held = self.ranges[node.name][form]
                    codes[node.name, form] = quantise(y, held, form)
                    values[node.name, form] = dequantise(codes[node.name, form], held)
        return values

    def float_layer(self, node: Node, x: Array, residual: list[Array]) -> Array:
        """activation(weight x + bias [+ residual])."""
        layer, op = self.layers[node.name], node.op
        assert isinstance(op, Conv2d | Linear)
        weight, bias = layer.values.astype(np.float64), layer.bias.astype(np.float64)
        y = x @ weight[:, :, 0, 0].T + bias if isinstance(op, Linear) else convolve(x, weight, op) + bias[:, None, None]
        return activate(y + residual[0] if residual else y, node.activation)

    def code_layer(self, node: Node, q: Codes, held: Range, residual: list[Array]) -> Array:
        """activation(multiplier c + bias [+ residual]) with c = sum level q over all of K, padding included."""
        layer, op = self.layers[node.name], node.op
        assert isinstance(op, Conv2d | Linear)
        levels = layer.levels.astype(np.float64)  # sums of products stay far below 2^53
        multiplier = layer.scale * np.float32(held.scale)
        share = held.zero_point * levels.sum((1, 2, 3)) * multiplier.astype(np.float64)
        bias = (layer.bias - share).astype(np.float32)
        if isinstance(op, Linear):
            sums = q @ levels[:, :, 0, 0].T
        else:
            sums = convolve(q.astype(np.float64), levels, op, held.padding)
            multiplier, bias = multiplier[:, None, None], bias[:, None, None]
        y = sums.astype(np.float32) * multiplier + bias
        if residual:
            y = y + residual[0].astype(np.float32)
        return activate(y.astype(np.float64), node.activation)

    def compute(self, node: Node, inputs: list[Array]) -> Array:
        x, op = inputs[0], node.op
        match op:
            case ScaleShift(activation):
                shape = (-1, 1, 1) if x.ndim == 4 else (-1,)
                scale, shift = (self.weights[f"{node.name}.{part}"].reshape(shape) for part in ("scale", "shift"))
                return activate(x * scale + shift, activation)
            case Activate(activation):
                return activate(x, activation)
            case Add(activation):
                return activate(x + inputs[1], activation)
            case Mul(activation):
                return activate(x * inputs[1], activation)
            case Concat():
                return np.concatenate(inputs, 1)
            case MaxPool(kernel, stride, padding, dilation):
                return windows(x, kernel, stride, padding, dilation, -np.inf).max((4, 5))
            case AveragePool(kernel, stride, padding, count_padding):
                sums = windows(x, kernel, stride, padding, (1, 1), 0.0).sum((4, 5))
                ones = windows(np.ones_like(x), kernel, stride, padding, (1, 1), float(count_padding)).sum((4, 5))
                return np.asarray(sums / ones)
            case Mean(keep):
                return x.mean((2, 3), keepdims=keep)
            case Pad((top, bottom, left, right), channels, value):
                return np.pad(x, ((0, 0), channels, (top, bottom), (left, right)), constant_values=value)
            case Slice(ranges):
                return x[(slice(None), *(slice(*triple) for triple in ranges))]
            case Reshape():
                return x.reshape(len(x), *node.shape)
            case Permute(order):
                return x.transpose(0, *(axis + 1 for axis in order))
            case Softmax():
                axis = 1 if x.ndim == 4 else -1
                e = np.exp(x - x.max(axis, keepdims=True))
                return np.asarray(e / e.sum(axis, keepdims=True))
            case _:
                raise AssertionError(f"no reference for {op}")
