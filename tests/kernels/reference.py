"""A plain interpreter of encoded networks: FORMAT.md and network.py in numpy, float64 and integers throughout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitplan.encodings import EncodedLayer
from bitplan.formats import Formats, Range, derive_formats
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
from bitplan.variant import F32, U8

Array = NDArray[np.float64]


def quantise(x: Array, held: Range) -> NDArray[np.int64]:
    """Codes of x, computed in float32 like the runtime's own."""
    ratio = np.rint(x.astype(np.float32) / np.float32(held.scale))
    return (np.clip(ratio, -1e6, 1e6) + held.zero_point).clip(0, 255).astype(np.int64)


def dequantise(q: NDArray[np.int64], held: Range) -> Array:
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


def convolve(x: Array, weight: Array, op: Conv2d) -> Array:
    """Grouped cross-correlation of x [N, C, H, W] with weight [O, C / groups, h, w], padded with zeros."""
    view = windows(x, op.kernel, op.stride, op.padding, op.dilation, 0.0)
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
    ranges: Mapping[str, Range]

    def __call__(self, inputs: Mapping[str, NDArray[np.generic]]) -> dict[str, Array]:
        """Outputs by name."""
        values = self.values(inputs)
        return {name: values[name, F32] for name in self.network.outputs}

    def values(self, inputs: Mapping[str, NDArray[np.generic]]) -> dict[tuple[str, str], Array]:
        """Every value in every format that it is kept in, as real numbers (u8: dequantised)."""
        formats: Formats = derive_formats(self.network, {name: layer.variant for name, layer in self.layers.items()})
        values: dict[tuple[str, str], Array] = {}
        for node in self.network:
            if isinstance(node.op, Input):
                y = preprocess(inputs[node.name], self.network.preprocessing)
            else:
                y = self.compute(node, [values[name, formats.read[node.name]] for name in node.inputs])
            assert y.shape[1:] == node.shape, (node, y.shape)
            kept = formats.kept[node.name]
            if F32 in kept:
                y = y.astype(np.float32).astype(np.float64)
                values[node.name, F32] = y
            if U8 in kept:
                held = self.ranges[node.name]
                values[node.name, U8] = dequantise(quantise(y, held), held)
        return values

    def layer(self, node: Node, inputs: list[Array]) -> Array:
        layer, op = self.layers[node.name], node.op
        # scale x ratio in exact arithmetic, not rounded to float32 in between
        if layer.variant.activation == F32:
            ratios, scale = layer.values.astype(np.float64), np.ones(layer.shape.out_channels)
        else:
            ratios, scale = layer.levels.astype(np.float64), layer.scale.astype(np.float64)
            ratios.reshape(-1)[layer.kept_positions] = layer.kept_ratios
        if isinstance(op, Conv2d):
            y = convolve(inputs[0], ratios, op)
            y = y * scale[:, None, None] + layer.bias[:, None, None]
        else:
            y = inputs[0] @ ratios[:, :, 0, 0].T * scale + layer.bias
        return y + inputs[1] if len(inputs) > 1 else y

    def compute(self, node: Node, inputs: list[Array]) -> Array:
        x, op = inputs[0], node.op
        match op:
            case Conv2d() | Linear():
                return activate(self.layer(node, inputs), op.activation)
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
