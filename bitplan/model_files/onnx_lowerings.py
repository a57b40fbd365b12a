"""What each ONNX operation becomes in torch, by the name of the operation."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from onnx import TensorProto
from torch import fx

from bitplan.model_files import onnx_functions as functions
from bitplan.model_files.onnx_graph import Builder
from bitplan.model_files.onnx_layers import average_pool, batch_norm, conv, gemm, matmul, max_pool

Lowering = Callable[[Builder], Any]
PAD_MODES = {"constant": "constant", "reflect": "reflect", "edge": "replicate", "wrap": "circular"}
"""Of torch, by ONNX's names."""


def unary(function: Any) -> Lowering:
    return lambda b: b.call(function, b.tensor())


def binary(function: Any) -> Lowering:
    return lambda b: b.call(function, b.tensor(0), b.tensor(1))


def variadic(function: Any) -> Lowering:
    def lower(b: Builder) -> fx.Node:
        made = b.tensor()
        for place in range(1, len(b.node.input)):
            made = b.call(function, made, b.tensor(place))
        return made

    return lower


def global_pool(kind: str) -> Lowering:
    return lambda b: b.call(functions.reduce, b.tensor(), kind, (2, 3), True, False)


def reduction(kind: str) -> Lowering:
    def lower(b: Builder) -> fx.Node:
        axes = b.numbers(1, "axes")
        nothing = bool(b.attribute("noop_with_empty_axes", 0))
        return b.call(functions.reduce, b.tensor(), kind, axes, bool(b.attribute("keepdims", 1)), nothing)

    return lower


def reshape(b: Builder) -> fx.Node:
    sizes = b.numbers(1, "shape")
    return b.call(functions.reshape, b.tensor(), sizes, bool(b.attribute("allowzero", 0)), b.free_batch(sizes))


def expand(b: Builder) -> fx.Node:
    sizes = b.numbers(1)
    return b.call(functions.expand, b.tensor(), sizes, b.free_batch(sizes))


def concat(b: Builder) -> fx.Node:
    return b.call(torch.cat, [b.tensor(place) for place in range(len(b.node.input))], b.attribute("axis", 1))


def split(b: Builder) -> tuple[fx.Node, ...]:
    count = b.attribute("num_outputs", len(b.node.output))
    made = b.call(functions.split, b.tensor(), b.numbers(1, "split"), count, b.attribute("axis", 0))
    return tuple(b.call(operator.getitem, made, index) for index in range(len(b.node.output)))


def slice_(b: Builder) -> fx.Node:
    starts, ends, axes, steps = b.numbers(1, "starts"), b.numbers(2, "ends"), b.numbers(3, "axes"), b.numbers(4)
    if isinstance(steps, tuple) and min(steps) < 1:
        b.fail(f"walks backwards, in steps {steps}")
    return b.call(functions.slice_, b.tensor(), starts, ends, axes, steps)


def gather(b: Builder) -> fx.Node:
    return b.call(functions.gather, b.tensor(), _index(b), b.attribute("axis", 0))


def _index(b: Builder) -> Any:
    index = b.constant(1)
    if index.ndim > 1:
        b.fail(f"takes indices of {index.ndim} axes")
    return int(index) if index.ndim == 0 else tuple(index.tolist())


def multiply(b: Builder) -> fx.Node:
    """x sigmoid(x) and x hard_sigmoid(x), which exporters write for SiLU and hard-swish, are these again."""
    factors = b.tensor(0), b.tensor(1)
    for x, gate in (factors, factors[::-1]):
        for function, whole in ((torch.sigmoid, F.silu), (functions.hard_sigmoid, F.hardswish)):
            if gate.target is function and gate.args[0] is x and _as_torch(gate.args[1:]):
                return b.call(whole, x)
    return b.call(torch.mul, *factors)


def _as_torch(slope_and_shift: Any) -> bool:
    """Whether a gate has no parameters, or those of torch's hard sigmoid."""
    return not slope_and_shift or (abs(slope_and_shift[0] - 1 / 6) < 1e-6 and slope_and_shift[1] == 0.5)


def pad(b: Builder) -> fx.Node:
    mode = PAD_MODES.get(b.attribute("mode", "constant"))
    if mode is None:
        b.fail(f"pads in the unknown mode {b.attribute('mode', '')!r}")
    return b.call(functions.pad, b.tensor(), b.numbers(1, "pads"), b.number(2, "value", 0.0), mode, b.numbers(3))


def clip(b: Builder) -> fx.Node:
    return b.call(functions.clip, b.tensor(), b.number(1, "min"), b.number(2, "max"))


def softmax(log: bool) -> Lowering:
    def lower(b: Builder) -> fx.Node:
        older = b.opset < 13
        return b.call(functions.softmax, b.tensor(), b.attribute("axis", 1 if older else -1), log, older)

    return lower


def cast(b: Builder) -> fx.Node:
    if b.attribute("to", TensorProto.FLOAT) != TensorProto.FLOAT:
        b.fail("converts to something else than float32", "export the network in float32 without conversions")
    return b.tensor()


def prelu(b: Builder) -> fx.Node:
    slope = b.constant(1).reshape(-1)
    return b.call(F.prelu, b.tensor(), b.buffer(b.node.input[1], slope))


def gelu(b: Builder) -> fx.Node:
    function = functions.gelu_by_tanh if b.attribute("approximate", "none") == "tanh" else F.gelu
    return b.call(function, b.tensor())


def layer_norm(b: Builder) -> fx.Node:
    if b.attribute("axis", -1) != -1:
        b.fail("normalises over several axes")
    scale = b.constant(1)
    shift = b.tensor(2) if b.given(2) else None
    return b.call(F.layer_norm, b.tensor(), tuple(scale.shape), b.tensor(1), shift, b.attribute("epsilon", 1e-5))


def quantised(b: Builder) -> Any:
    b.fail("belongs to a quantised network", "give the float32 network; bitplan quantises it")


LOWERINGS: dict[str, Lowering] = {
    "Abs": unary(torch.abs),
    "Add": binary(torch.add),
    "AveragePool": average_pool,
    "BatchNormalization": batch_norm,
    "Cast": cast,
    "Clip": clip,
    "Concat": concat,
    "Conv": conv,
    "ConvInteger": quantised,
    "DepthToSpace": lambda b: b.call(
        functions.depth_to_space, b.tensor(), b.attribute("blocksize", 1), b.attribute("mode", "DCR") == "CRD"
    ),
    "DequantizeLinear": quantised,
    "Div": binary(torch.div),
    "Dropout": lambda b: b.tensor(),
    "Elu": lambda b: b.call(F.elu, b.tensor(), b.attribute("alpha", 1.0)),
    "Erf": unary(torch.erf),
    "Exp": unary(torch.exp),
    "Expand": expand,
    "Flatten": lambda b: b.call(functions.flatten, b.tensor(), b.attribute("axis", 1)),
    "Gather": gather,
    "Gelu": gelu,
    "Gemm": gemm,
    "GlobalAveragePool": global_pool("mean"),
    "GlobalMaxPool": global_pool("amax"),
    "HardSigmoid": lambda b: b.call(
        functions.hard_sigmoid, b.tensor(), b.attribute("alpha", 0.2), b.attribute("beta", 0.5)
    ),
    "HardSwish": unary(F.hardswish),
    "Identity": lambda b: b.tensor(),
    "LayerNormalization": layer_norm,
    "LeakyRelu": lambda b: b.call(F.leaky_relu, b.tensor(), b.attribute("alpha", 0.01)),
    "LogSoftmax": softmax(True),
    "MatMul": matmul,
    "MatMulInteger": quantised,
    "Max": variadic(torch.maximum),
    "MaxPool": max_pool,
    "Min": variadic(torch.minimum),
    "Mish": unary(F.mish),
    "Mul": multiply,
    "Neg": unary(torch.neg),
    "Pad": pad,
    "Pow": binary(torch.pow),
    "PRelu": prelu,
    "QLinearConv": quantised,
    "QuantizeLinear": quantised,
    "Reciprocal": unary(torch.reciprocal),
    "ReduceMax": reduction("amax"),
    "ReduceMean": reduction("mean"),
    "ReduceMin": reduction("amin"),
    "ReduceSum": reduction("sum"),
    "Relu": unary(F.relu),
    "Reshape": reshape,
    "Sigmoid": unary(torch.sigmoid),
    "Slice": slice_,
    "Softmax": softmax(False),
    "Softplus": unary(F.softplus),
    "Split": split,
    "Sqrt": unary(torch.sqrt),
    "Squeeze": lambda b: b.call(functions.squeeze, b.tensor(), b.numbers(1, "axes")),
    "Sub": binary(torch.sub),
    "Sum": variadic(torch.add),
    "Swish": lambda b: b.call(F.silu, b.tensor()),
    "Tanh": unary(torch.tanh),
    "Transpose": lambda b: b.call(torch.permute, b.tensor(), tuple(b.attribute("perm", ()))),
    "Unsqueeze": lambda b: b.call(functions.unsqueeze, b.tensor(), b.numbers(1, "axes")),
}
