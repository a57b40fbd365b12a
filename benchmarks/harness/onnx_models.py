"""ONNX models of the workloads with random weights, in the form that both peers execute fastest.

8 bits: QuantizeLinear/DequantizeLinear pairs, activations uint8 with zero point 0 (they follow a ReLU), weights int8
with one scale per output channel, biases int32; inputs and outputs are uint8, so that nothing is converted at the ends.

Without VNNI the peers multiply by VPMADDUBSW, whose sums of two products saturate at 16 bits: 8-bit weights give wrong
results there. Their documentation asks for 7-bit weights on such processors (`reduce_range`), so that is what they get
at those levels; and for unsigned weights (`unsigned`) where 8 bits are needed, which is slower.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from .workloads import ColdLinear, ConvChain

OPSET = 21
ACTIVATION_SCALE = np.float32(0.02)


@dataclass(frozen=True, slots=True)
class WeightFormat:
    """How 8-bit weights are held: in `bits` bits, as int8, or as uint8 around a zero point of 128."""

    bits: int = 8
    unsigned: bool = False


def conv_chain_int8(workload: ConvChain, form: WeightFormat = WeightFormat(), seed: int = 0) -> onnx.ModelProto:
    """x uint8 [1, C, H, W] -> y uint8 of the same shape."""
    rng = np.random.default_rng(seed)
    graph = Graph()
    graph.constant("scale", ACTIVATION_SCALE)
    graph.constant("zero", np.uint8(0))
    pad = workload.kernel // 2
    shape = [1, workload.channels, workload.size, workload.size]
    value = "x"
    for i in range(workload.depth):
        size = (workload.channels, workload.channels, workload.kernel, workload.kernel)
        weight = _quantised_weight(graph, rng, f"conv{i}", size, form)
        real = graph.node("DequantizeLinear", [value, "scale", "zero"])
        made = graph.node("Conv", [real, *weight], pads=[pad] * 4, kernel_shape=[workload.kernel] * 2)
        made = graph.node("Relu", [made])
        value = graph.node("QuantizeLinear", [made, "scale", "zero"], output="y" if i + 1 == workload.depth else None)
    return graph.model(("x", TensorProto.UINT8, shape), ("y", TensorProto.UINT8, shape))


def conv_chain_fp32(workload: ConvChain, seed: int = 0) -> onnx.ModelProto:
    """x float32 [1, C, H, W] -> y float32 of the same shape."""
    rng = np.random.default_rng(seed)
    graph = Graph()
    pad = workload.kernel // 2
    shape = [1, workload.channels, workload.size, workload.size]
    value = "x"
    for i in range(workload.depth):
        size = (workload.channels, workload.channels, workload.kernel, workload.kernel)
        graph.constant(f"conv{i}.weight", _he(rng, size))
        graph.constant(f"conv{i}.bias", np.zeros(workload.channels, np.float32))
        names = [value, f"conv{i}.weight", f"conv{i}.bias"]
        made = graph.node("Conv", names, pads=[pad] * 4, kernel_shape=[workload.kernel] * 2)
        value = graph.node("Relu", [made], output="y" if i + 1 == workload.depth else None)
    return graph.model(("x", TensorProto.FLOAT, shape), ("y", TensorProto.FLOAT, shape))


def linear_int8(workload: ColdLinear, form: WeightFormat = WeightFormat(), seed: int = 0) -> onnx.ModelProto:
    """x uint8 [1, K] -> y uint8 [1, K] by QDQ Gemm."""
    rng = np.random.default_rng(seed)
    graph = Graph()
    graph.constant("scale", ACTIVATION_SCALE)
    graph.constant("zero", np.uint8(0))
    weight = _quantised_weight(graph, rng, "fc", (workload.features, workload.features), form)
    real = graph.node("DequantizeLinear", ["x", "scale", "zero"])
    made = graph.node("Gemm", [real, *weight], transB=1)
    graph.node("QuantizeLinear", [made, "scale", "zero"], output="y")
    shape = [1, workload.features]
    return graph.model(("x", TensorProto.UINT8, shape), ("y", TensorProto.UINT8, shape))


def linear_integer(workload: ColdLinear, bits: int = 8, seed: int = 0) -> onnx.ModelProto:
    """x uint8 [1, K] -> y int32 [1, K] by MatMulInteger."""
    top = 2 ** (bits - 1) - 1
    rng = np.random.default_rng(seed)
    graph = Graph()
    graph.constant("zero", np.uint8(0))
    graph.constant("weight", rng.integers(-top, top + 1, (workload.features, workload.features), np.int8))
    graph.node("MatMulInteger", ["x", "weight", "zero"], output="y")
    shape = [1, workload.features]
    return graph.model(("x", TensorProto.UINT8, shape), ("y", TensorProto.INT32, shape))


def linear_nbits(workload: ColdLinear, bits: int = 4, block: int = 128, seed: int = 0) -> onnx.ModelProto:
    """x float32 [1, K] -> y float32 [1, K] by ONNX Runtime's MatMulNBits with its 8-bit activations
    (accuracy level 4, its fastest): `bits` bits per weight, one scale per `block` weights."""
    rng = np.random.default_rng(seed)
    graph = Graph()
    k = workload.features
    graph.constant("weight", rng.integers(0, 256, (k, k // block, block * bits // 8), np.uint8))
    graph.constant("scales", np.full(k * k // block, 0.1 / np.sqrt(k), np.float32))
    graph.node(
        "MatMulNBits",
        ["x", "weight", "scales"],
        output="y",
        domain="com.microsoft",
        K=k,
        N=k,
        bits=bits,
        block_size=block,
        accuracy_level=4,
    )
    shape = [1, k]
    return graph.model(("x", TensorProto.FLOAT, shape), ("y", TensorProto.FLOAT, shape))


def _he(rng: np.random.Generator, size: tuple[int, ...]) -> NDArray[np.float32]:
    """Random weights that keep the magnitude of activations (arXiv 1502.01852)."""
    return rng.standard_normal(size, np.float32) * np.float32(np.sqrt(2 / np.prod(size[1:])))


def _quantised_weight(
    graph: Graph, rng: np.random.Generator, name: str, size: tuple[int, ...], form: WeightFormat
) -> tuple[str, str]:
    """The names of the dequantised weight (a scale per output channel) and bias (int32)."""
    weight = _he(rng, size)
    scale = np.abs(weight).reshape(size[0], -1).max(1) / np.float32(2 ** (form.bits - 1) - 1)
    levels = np.rint(weight / scale.reshape(-1, *[1] * (len(size) - 1))).astype(np.int16)
    zero, kind = (128, np.uint8) if form.unsigned else (0, np.int8)
    bias_scale = scale * ACTIVATION_SCALE
    graph.constant(f"{name}.weight", (levels + zero).astype(kind))
    graph.constant(f"{name}.scale", scale)
    graph.constant(f"{name}.zero", np.full(size[0], zero, kind))
    graph.constant(f"{name}.bias", np.rint(rng.normal(0, 0.1, size[0]) / bias_scale).astype(np.int32))
    graph.constant(f"{name}.bias_scale", bias_scale)
    graph.constant(f"{name}.bias_zero", np.zeros(size[0], np.int32))
    return (
        graph.node("DequantizeLinear", [f"{name}.weight", f"{name}.scale", f"{name}.zero"], axis=0),
        graph.node("DequantizeLinear", [f"{name}.bias", f"{name}.bias_scale", f"{name}.bias_zero"], axis=0),
    )


class Graph:
    """An ONNX graph in the making: collects nodes and constants."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, name: str, array: NDArray[np.generic] | np.generic) -> None:
        self.constants.append(numpy_helper.from_array(np.asarray(array), name))

    def node(self, kind: str, inputs: list[str], output: str | None = None, domain: str = "", **attributes: Any) -> str:
        """Adds a node with one output and returns the output's name."""
        output = output or f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [output], output, domain=domain, **attributes))
        return output

    def model(self, *ends: tuple[str, int, list[int]]) -> onnx.ModelProto:
        x, y = (helper.make_tensor_value_info(*end) for end in ends)
        graph = helper.make_graph(self.nodes, "g", [x], [y], self.constants)
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10)
