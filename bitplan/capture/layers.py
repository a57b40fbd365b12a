"""Convolutions, dense layers and batch norm."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np
from torch import Tensor

from bitplan.capture.call import Call, array
from bitplan.capture.draft import DraftNode, FloatArray
from bitplan.network import Conv2d, Linear, Padding, Reshape, ScaleShift


def _layer_name(call: Call, weight: str, kind: str) -> str:
    """The module's path; for a functional call the path of the module or parameter that holds the weight."""
    if call.layer and call.path:
        return call.path
    return call.parameter_names.get(weight) or call.default_name(kind)


def _bias(call: Call, size: int) -> FloatArray:
    bias = call.constant("bias")
    return np.zeros(size, np.float32) if bias is None else array(bias).reshape(size)


def conv2d(call: Call) -> DraftNode:
    x, weight = call.image("input"), call.constant("weight")
    assert weight is not None
    if weight.ndim != 4:
        call.fail(f"has a weight of shape {tuple(weight.shape)}")
    kernel = (int(weight.shape[2]), int(weight.shape[3]))
    dilation = call.pair("dilation")
    padding: Padding
    if call["padding"] == "same":
        total = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        padding = (total[0] // 2, total[0] - total[0] // 2, total[1] // 2, total[1] - total[1] // 2)
    elif call["padding"] == "valid":
        padding = (0, 0, 0, 0)
    else:
        height, width = call.pair("padding")
        padding = (height, height, width, width)
    op = Conv2d(kernel, call.pair("stride"), padding, dilation, int(call["groups"]))
    arrays = {"weight": array(weight), "bias": _bias(call, len(weight))}
    return call.add(op, [x], arrays=arrays, name=_layer_name(call, "weight", "conv2d"))


def linear(call: Call) -> DraftNode:
    weight = call.constant("weight")
    assert weight is not None
    return _dense(call, call.node("input"), weight, _bias(call, len(weight)), _layer_name(call, "weight", "linear"))


def matmul(call: Call) -> DraftNode:
    second = "mat2" if "mat2" in call.arguments else "other"
    weight = call.constant(second)
    if weight is None or weight.ndim != 2:
        call.fail("multiplies by something else than a matrix")
    name = _layer_name(call, second, "linear")
    return _dense(call, call.node(), weight.T, np.zeros(weight.shape[1], np.float32), name)


def addmm(call: Call) -> DraftNode:
    bias, weight = call.constant("self"), call.constant("mat2")
    assert bias is not None and weight is not None
    full = float(call["beta"]) * bias.expand(call.batch, weight.shape[1])
    if not (full == full[0]).all():
        call.fail("adds a matrix that differs from image to image")
    name = _layer_name(call, "mat2", "linear")
    return _dense(call, call.node("mat1"), float(call["alpha"]) * weight.T, array(full[0]), name)


def _dense(call: Call, x: DraftNode, weight: Tensor, bias: FloatArray, name: str) -> DraftNode:
    arrays = {"weight": array(weight), "bias": bias}
    if weight.ndim != 2:
        call.fail(f"has a weight of shape {tuple(weight.shape)}", "write it as nn.Linear with [out, in] weights")
    if len(x.shape) <= 2:
        return call.add(Linear(), [x], arrays=arrays, name=name)
    rows = prod(x.shape[:-1])
    matrix = call.add(Reshape(), [x], (rows, x.shape[-1]), name=f"{name}.rows")
    product = call.add(Linear(), [matrix], (rows, len(weight)), arrays, name=name)
    return call.add(Reshape(), [product], name=f"{name}.unrows")


def batch_norm(call: Call) -> DraftNode:
    if call.arguments.get("training"):
        call.fail(
            "normalises by the statistics of the batch",
            "keep running statistics (track_running_stats=True), so that each image is computed by itself",
        )
    x = call.node("input")
    mean, variance = call.constant("running_mean"), call.constant("running_var")
    assert mean is not None and variance is not None
    if len(x.shape) not in (1, 3):
        call.fail(f"normalises a value of shape {x.shape}", "normalise images [N, C, H, W] or vectors [N, C]")
    weight, bias = call.constant("weight"), call.constant("bias")
    with np.errstate(all="ignore"):  # what is not finite is reported when the draft is finished
        scale = 1 / np.sqrt(variance.double().numpy() + float(call["eps"]))
        scale = scale if weight is None else scale * weight.double().numpy()
        shift = -mean.double().numpy() * scale
        shift = shift if bias is None else shift + bias.double().numpy()
        arrays = {"scale": scale.astype(np.float32), "shift": shift.astype(np.float32)}
    return call.add(ScaleShift(), [x], x.shape, arrays)


def batch_norm_without_training(call: Call) -> tuple[DraftNode, None, None]:
    return batch_norm(call), None, None


LAYERS: dict[str, Callable[[Call], Any]] = {
    "conv2d": conv2d,
    "linear": linear,
    "matmul": matmul,
    "mm": matmul,
    "addmm": addmm,
    "batch_norm": batch_norm,
    "_native_batch_norm_legit_no_training": batch_norm_without_training,
    "_native_batch_norm_legit": lambda call: call.fail(
        "normalises by the statistics of the batch",
        "keep running statistics (track_running_stats=True), so that each image is computed by itself",
    ),
}
