"""What each operation of a network means, in torch. Values are batches [N, *shape] of float32."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from bitplan.network import (
    Activate,
    Activation,
    Add,
    AveragePool,
    Concat,
    Conv2d,
    Linear,
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
)


def shared(array: NDArray[Any]) -> Tensor:
    """A tensor on the array's memory, or on a copy where torch cannot share it (read-only, reversed)."""
    array = np.ascontiguousarray(array)
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def activate(activation: Activation, x: Tensor) -> Tensor:
    """activation(x), in place: for a value that nobody else holds."""
    match activation.kind:
        case "clamp":
            return x.clamp_(activation.low, activation.high)
        case "hard_swish":
            return F.hardswish(x, inplace=True)
        case "silu":
            return F.silu(x, inplace=True)
        case "sigmoid":
            return x.sigmoid_()
        case "hard_sigmoid":
            return F.hardsigmoid(x, inplace=True)
        case _:
            return x


def finish(y: Tensor, residual: Tensor | None, activation: Activation) -> Tensor:
    """activation(y [+ residual]), in place."""
    return activate(activation, y if residual is None else y.add_(residual))


def convolve(op: Conv2d, x: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None = None) -> Tensor:
    """activation(conv(x) + bias [+ residual])."""
    top, bottom, left, right = op.padding
    if top == bottom and left == right:
        y = F.conv2d(x, weight, bias, op.stride, (top, left), op.dilation, op.groups)
    else:
        y = F.conv2d(_pad(x, op.padding), weight, bias, op.stride, 0, op.dilation, op.groups)
    return finish(y, residual, op.activation)


def dense(op: Linear, x: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None = None) -> Tensor:
    """activation(x weight' + bias [+ residual])."""
    return finish(F.linear(x, weight, bias), residual, op.activation)


def scale_shift(op: ScaleShift, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """activation(scale x + shift) per channel."""
    if x.ndim == 4:
        scale, shift = scale.view(-1, 1, 1), shift.view(-1, 1, 1)
    return activate(op.activation, (x * scale).add_(shift))


def execute(node: Node, inputs: Sequence[Tensor]) -> Tensor:
    """The value of a node without weights. Raises TypeError for any other."""
    x, op = inputs[0], node.op
    match op:
        case Activate():
            return activate(op.activation, x.clone())
        case Add():
            return activate(op.activation, x + inputs[1])
        case Mul():
            return activate(op.activation, x * inputs[1])
        case Concat():
            return torch.cat(list(inputs), 1)
        case MaxPool():
            # Not by max_pool2d's own padding: that one is symmetric and at most half a kernel.
            x = _pad(x, op.padding, -inf) if any(op.padding) else x
            return F.max_pool2d(x, op.kernel, op.stride, 0, op.dilation)
        case AveragePool():
            return _average_pool(op, x)
        case Mean():
            return x.mean((2, 3), keepdim=op.keep)
        case Pad():
            return F.pad(x, (*_horizontal_first(op.padding), *op.channels), value=op.value)
        case Slice():
            return x[(slice(None), *(slice(*bounds) for bounds in op.ranges))]
        case Reshape():
            return x.reshape(x.shape[0], *node.shape)
        case Permute():
            return x.permute(0, *(axis + 1 for axis in op.order))
        case Softmax():
            return x.softmax(1 if x.ndim == 4 else -1)
    raise TypeError(f"node {node.name!r}: {type(op).__name__} is not an operation without weights")


def _horizontal_first(padding: Padding) -> Padding:
    """(left, right, top, bottom), as torch wants it."""
    return padding[2], padding[3], padding[0], padding[1]


def _pad(x: Tensor, padding: Padding, value: float = 0.0) -> Tensor:
    return F.pad(x, _horizontal_first(padding), value=value)


def _average_pool(op: AveragePool, x: Tensor) -> Tensor:
    mean = F.avg_pool2d(_pad(x, op.padding) if any(op.padding) else x, op.kernel, op.stride)
    if op.count_padding or not any(op.padding):
        return mean
    inside = _pad(x.new_ones(1, 1, *x.shape[2:]), op.padding)
    return mean / F.avg_pool2d(inside, op.kernel, op.stride)
