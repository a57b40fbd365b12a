"""Element-wise operations: activations, sums and products, of two values or with constants."""

from __future__ import annotations

from collections.abc import Callable
from math import inf, isnan
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bitplan.capture.call import Call, Expanded, Operand
from bitplan.capture.draft import DraftNode, FloatArray
from bitplan.network import RELU, RELU6, Activate, Activation, Add, Mul, ScaleShift, Shape, Softmax


def _activation(activation: Activation) -> Callable[[Call], DraftNode]:
    return lambda call: call.add(Activate(activation), [call.node()], name=_activation_name(call))


def _activation_name(call: Call) -> str:
    return call.default_name(call.operation.strip("_"))


def _bound(call: Call, names: tuple[str, ...], default: float) -> float:
    for name in names:
        value = call.arguments.get(name)
        if value is None:
            continue
        if isinstance(value, Tensor):
            if value.numel() != 1:
                call.fail("clamps every element by a bound of its own")
            value = value.item()
        if not isinstance(value, int | float):
            call.fail("clamps by a value of the network")
        if isnan(value):
            call.fail("clamps by NaN")
        return float(value)
    return default


def clamp(call: Call) -> DraftNode:
    low = _bound(call, ("min", "min_val"), -inf)
    high = _bound(call, ("max", "max_val"), inf)
    # torch lets the upper bound win where the bounds are crossed, as min(max(y, low), high) does.
    return call.add(Activate(Activation("clamp", low, high)), [call.node()], name=_activation_name(call))


def _channel_vector(call: Call, x: DraftNode, operand: Tensor | float) -> FloatArray:
    """A constant operand as one number per channel of `x`, float64."""
    channels = x.shape[0] if len(x.shape) == 3 else x.shape[-1]
    constant = torch.as_tensor(operand, dtype=torch.float64)
    if constant.numel() and bool((constant == constant.reshape(-1)[0]).all()) and call.shape == x.shape:
        return np.full(channels, float(constant.reshape(-1)[0]))
    per_channel = (1, channels, 1, 1) if len(x.shape) == 3 else (*[1] * len(x.shape), channels)
    padded = constant.reshape((1,) * (len(x.shape) + 1 - constant.ndim) + tuple(constant.shape))
    if call.shape != x.shape or tuple(padded.shape) != per_channel:
        call.fail(
            f"combines [N, {', '.join(map(str, x.shape))}] with a constant of shape {tuple(constant.shape)}",
            "use constants of one number, or of one number per channel",
        )
    return padded.reshape(-1).numpy()


def _scale_shift(call: Call, x: DraftNode, scale: Any, shift: Any) -> DraftNode:
    channels = x.shape[0] if len(x.shape) == 3 else x.shape[-1]
    arrays = {
        "scale": np.broadcast_to(np.asarray(scale, np.float32), channels).copy(),
        "shift": np.broadcast_to(np.asarray(shift, np.float32), channels).copy(),
    }
    return call.add(ScaleShift(), [x], x.shape, arrays, _activation_name(call))


def _value(operand: Operand) -> tuple[DraftNode, Shape] | None:
    """A value of the network and the shape it is used in; None for a constant."""
    if isinstance(operand, Expanded):
        return operand.source, operand.shape
    return (operand, operand.shape) if isinstance(operand, DraftNode) else None


def _combine(call: Call, op: type[Add | Mul], a: DraftNode, b: DraftNode) -> DraftNode:
    if a.shape != call.shape:
        a, b = b, a
    per_channel = len(a.shape) == 3 and b.shape == (a.shape[0], 1, 1)
    if a.shape != call.shape or not (b.shape == a.shape or per_channel):
        call.fail(
            f"combines the shapes {a.shape} and {b.shape}",
            "both operands must have one shape, or one of them (C, 1, 1) against (C, H, W)",
        )
    return call.add(op(), [a, b], name=_activation_name(call))


def add(call: Call) -> DraftNode:
    return _sum(call, call["self"], call["other"], 1.0, float(call.arguments.get("alpha", 1)))


def subtract(call: Call) -> DraftNode:
    return _sum(call, call["self"], call["other"], 1.0, -float(call.arguments.get("alpha", 1)))


def reverse_subtract(call: Call) -> DraftNode:
    return _sum(call, call["self"], call["other"], -float(call.arguments.get("alpha", 1)), 1.0)


def _sum(call: Call, first: Operand, second: Operand, factor: float, other_factor: float) -> DraftNode:
    """factor first + other_factor second."""
    a, b = _value(first), _value(second)
    if a is None:
        a, b, first, second, factor, other_factor = b, a, second, first, other_factor, factor
    assert a is not None
    if b is None:
        assert not isinstance(second, DraftNode | Expanded)
        return _scale_shift(call, a[0], factor, other_factor * _channel_vector(call, a[0], second))
    left = a[0] if factor == 1 else _scale_shift(call, a[0], factor, 0)
    right = b[0] if other_factor == 1 else _scale_shift(call, b[0], other_factor, 0)
    return _combine(call, Add, left, right)


def multiply(call: Call) -> DraftNode:
    first, second = call["self"], call["other"]
    a, b = _value(first), _value(second)
    if a is None:
        a, b, first, second = b, a, second, first
    assert a is not None
    if b is None:
        return _scale_shift(call, a[0], _channel_vector(call, a[0], second), 0)
    return _combine(call, Mul, a[0], b[0])


def divide(call: Call) -> DraftNode:
    if call.arguments.get("rounding_mode") is not None:
        call.fail("rounds its quotient")
    if isinstance(call["other"], DraftNode | Expanded):
        call.fail("divides by a value of the network", "divide by constants only")
    x = call.node()
    with np.errstate(divide="ignore"):  # what is not finite is reported when the draft is finished
        return _scale_shift(call, x, 1 / _channel_vector(call, x, call["other"]), 0)


def negate(call: Call) -> DraftNode:
    return _scale_shift(call, call.node(), -1, 0)


def softmax(call: Call) -> DraftNode:
    x = call.node()
    if call.axis(x, int(call["dim"])) != (0 if len(x.shape) == 3 else len(x.shape) - 1):
        call.fail(f"runs over axis {call['dim']} of [N, {', '.join(map(str, x.shape))}]", "run it over the channels")
    return call.add(Softmax(), [x], name=_activation_name(call))


ARITHMETIC: dict[str, Callable[[Call], Any]] = {
    "relu": _activation(RELU),
    "relu6": _activation(RELU6),
    "hardswish": _activation(Activation("hard_swish")),
    "silu": _activation(Activation("silu")),
    "sigmoid": _activation(Activation("sigmoid")),
    "hardsigmoid": _activation(Activation("hard_sigmoid")),
    "clamp": clamp,
    "clamp_min": clamp,
    "clamp_max": clamp,
    "hardtanh": clamp,
    "add": add,
    "sub": subtract,
    "rsub": reverse_subtract,
    "mul": multiply,
    "div": divide,
    "neg": negate,
    "softmax": softmax,
    "_softmax": softmax,
}
