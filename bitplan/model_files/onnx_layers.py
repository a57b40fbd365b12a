"""ONNX's convolutions, linear layers, batch norms and pools in torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import fx, nn

from bitplan.model_files import onnx_functions as functions
from bitplan.model_files.onnx_graph import Builder


def conv(b: Builder) -> fx.Node:
    weight = b.constant(1)
    bias = b.constant(2) if b.given(2) else None
    if weight.ndim != 4:
        b.fail(f"has a weight of {weight.ndim} axes; only 2-d convolutions are known", "write it as a 2-d convolution")
    kernel = tuple(weight.shape[2:])
    stride, dilation = (tuple(b.attribute(name, (1, 1))) for name in ("strides", "dilations"))
    groups = b.attribute("group", 1)
    x, padding = spatial(b, kernel, stride, dilation, 0.0)
    layer = nn.Conv2d(
        weight.shape[1] * groups, weight.shape[0], kernel, stride, padding, dilation, groups, bias is not None
    )
    return b.layer(layer, weight, bias, x)


def spatial(b: Builder, kernel: Any, stride: Any, dilation: Any, value: float) -> tuple[fx.Node, tuple[int, int]]:
    """The input of a window, padded where torch's symmetric padding cannot say it, and that padding."""
    x, auto = b.tensor(), b.attribute("auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        return b.call(functions.padded_same, x, kernel, stride, dilation, auto == "SAME_LOWER", value), (0, 0)
    top, left, bottom, right = b.attribute("pads", (0, 0, 0, 0)) if auto == "NOTSET" else (0, 0, 0, 0)
    if (top, left) == (bottom, right):
        return x, (top, left)
    return b.call(functions.padded, x, (top, bottom, left, right), value), (0, 0)


def gemm(b: Builder) -> fx.Node:
    alpha, beta = b.attribute("alpha", 1.0), b.attribute("beta", 1.0)
    if b.attribute("transA", 0) or not b.is_constant(1) or (b.given(2) and not b.is_constant(2)):
        b.fail("multiplies two values of the network, or a transposed one")
    weight = b.constant(1) if b.attribute("transB", 0) else b.constant(1).T
    bias = beta * np.broadcast_to(b.constant(2).reshape(-1), weight.shape[:1]) if b.given(2) else None
    return linear(b, alpha * weight, bias)


def matmul(b: Builder) -> fx.Node:
    if b.is_constant(1) and b.constant(1).ndim == 2:
        return linear(b, b.constant(1).T, None)
    return b.call(torch.matmul, b.tensor(0), b.tensor(1))


def linear(b: Builder, weight: Any, bias: Any) -> fx.Node:
    return b.layer(nn.Linear(weight.shape[1], weight.shape[0], bias is not None), weight, bias, b.tensor())


def batch_norm(b: Builder) -> fx.Node:
    if b.attribute("training_mode", 0):
        b.fail("is in training mode", "export the network in evaluation mode")
    scale, shift, mean, variance = (b.tensor(place) for place in range(1, 5))
    return b.call(F.batch_norm, b.tensor(), mean, variance, scale, shift, False, 0.0, b.attribute("epsilon", 1e-5))


def max_pool(b: Builder) -> fx.Node:
    kernel = _kernel(b)
    stride, dilation = (tuple(b.attribute(name, (1, 1))) for name in ("strides", "dilations"))
    x, padding = spatial(b, kernel, stride, dilation, float("-inf"))
    return b.call(functions.max_pool, x, kernel, stride, padding, dilation, bool(b.attribute("ceil_mode", 0)))


def average_pool(b: Builder) -> fx.Node:
    kernel, stride = _kernel(b), tuple(b.attribute("strides", (1, 1)))
    count = bool(b.attribute("count_include_pad", 0))
    x, padding = spatial(b, kernel, stride, tuple(b.attribute("dilations", (1, 1))), 0.0)
    if x is not b.tensor() and not count:
        b.fail("pads unevenly without counting the padding", "pad evenly, or set count_include_pad")
    return b.call(functions.average_pool, x, kernel, stride, padding, bool(b.attribute("ceil_mode", 0)), count)


def _kernel(b: Builder) -> tuple[int, ...]:
    kernel = tuple(b.attribute("kernel_shape", ()))
    if len(kernel) != 2:
        b.fail(f"has a window of {len(kernel)} axes; only 2-d pools are known", "write it as a 2-d pool")
    return kernel
