"""Whole networks for the peers: the captured graph that bitplan runs, written as ONNX, and its 8-bit version by ONNX
Runtime's static quantisation. What is captured has batch norms folded and activations fused, as peers do themselves.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from math import isfinite
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from bitplan.network import (
    Activate,
    Add,
    AveragePool,
    Conv2d,
    Input,
    Linear,
    MaxPool,
    Mean,
    Network,
    Node,
    Pad,
    Reshape,
    Slice,
)

from .captured import captured, images
from .engine import Unavailable
from .onnx_models import Graph
from .workloads import WholeNetwork

CALIBRATION_IMAGES = 16


def network_fp32(workload: WholeNetwork) -> onnx.ModelProto:
    return to_onnx(*captured(workload))


def network_qdq(workload: WholeNetwork, reduce_range: bool = False) -> onnx.ModelProto:
    """uint8 activations, int8 weights (7 bits with `reduce_range`) with a scale per output channel, MinMax calibration
    on random images."""
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self.images: Iterator[NDArray[np.float32]] = iter(images(workload, CALIBRATION_IMAGES))

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            image = next(self.images, None)
            return None if image is None else {"x": image[None]}

    with tempfile.TemporaryDirectory() as folder:
        full, prepared, quantised = (Path(folder) / name for name in ("f.onnx", "p.onnx", "q.onnx"))
        onnx.save(network_fp32(workload), str(full))
        quantization.shape_inference.quant_pre_process(str(full), str(prepared))
        quantization.quantize_static(
            str(prepared),
            str(quantised),
            Reader(),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            reduce_range=reduce_range,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
        )
        return onnx.load(str(quantised))


def to_onnx(network: Network, weights: dict[str, NDArray[np.float32]]) -> onnx.ModelProto:
    """The network with one image as input. Raises Unavailable for an operation that no benchmarked network has."""
    graph = Graph()
    names: dict[str, str] = {}
    for node in network:
        names[node.name] = _operation(graph, node, [names[name] for name in node.inputs], network, weights)
    graph.node("Identity", [names[network.outputs[0]]], output="y")
    x, y = network.inputs[0], network.by_name[network.outputs[0]]
    return graph.model(("x", TensorProto.FLOAT, [1, *x.shape]), ("y", TensorProto.FLOAT, [1, *y.shape]))


def _operation(
    graph: Graph, node: Node, inputs: list[str], network: Network, weights: dict[str, NDArray[np.float32]]
) -> str:
    match node.op:
        case Input():
            return "x"
        case Conv2d(kernel, stride, padding, dilation, groups, _):
            value = graph.node(
                "Conv",
                [inputs[0], *_weights(graph, node, weights)],
                kernel_shape=kernel,
                strides=stride,
                pads=_pads(padding),
                dilations=dilation,
                group=groups,
            )
            value = graph.node("Add", [value, inputs[1]]) if len(inputs) > 1 else value
        case Linear():
            value = graph.node("Gemm", [inputs[0], *_weights(graph, node, weights)], transB=1)
        case Add():
            value = graph.node("Add", inputs)
        case Activate():
            value = inputs[0]
        case MaxPool(kernel, stride, padding, dilation):
            value = graph.node(
                "MaxPool", inputs, kernel_shape=kernel, strides=stride, pads=_pads(padding), dilations=dilation
            )
        case AveragePool(kernel, stride, padding, count):
            value = graph.node(
                "AveragePool", inputs, kernel_shape=kernel, strides=stride, pads=_pads(padding), count_include_pad=count
            )
        case Mean(keep):
            value = graph.node("GlobalAveragePool", inputs)
            value = value if keep else graph.node("Flatten", [value])
        case Reshape():
            graph.constant(f"{node.name}.shape", np.array([1, *node.shape], np.int64))
            value = graph.node("Reshape", [*inputs, f"{node.name}.shape"])
        case Slice(ranges):
            names = [f"{node.name}.{part}" for part in ("start", "stop", "axes", "step")]
            starts, stops, steps = zip(*ranges, strict=True)
            for name, values in zip(names, (starts, stops, range(1, len(ranges) + 1), steps), strict=True):
                graph.constant(name, np.array(values, np.int64))
            value = graph.node("Slice", [*inputs, *names])
        case Pad((top, bottom, left, right), (before, after), filler):
            graph.constant(f"{node.name}.pads", np.array([0, before, top, left, 0, after, bottom, right], np.int64))
            graph.constant(f"{node.name}.value", np.float32(filler))
            value = graph.node("Pad", [*inputs, f"{node.name}.pads", f"{node.name}.value"])
        case operation:
            raise Unavailable(f"{node.name}: {type(operation).__name__} is not written to ONNX yet")
    return _activated(graph, node, value)


def _weights(graph: Graph, node: Node, weights: dict[str, NDArray[np.float32]]) -> list[str]:
    names = [f"{node.name}.weight", f"{node.name}.bias"]
    for name in names:
        graph.constant(name, weights[name])
    return names


def _activated(graph: Graph, node: Node, value: str) -> str:
    activation = node.activation
    if not activation:
        return value
    if activation.kind != "clamp":
        raise Unavailable(f"{node.name}: activation {activation.kind} is not written to ONNX yet")
    if activation.low == 0 and not isfinite(activation.high):
        return graph.node("Relu", [value])
    graph.constant(f"{node.name}.low", np.float32(activation.low))
    graph.constant(f"{node.name}.high", np.float32(activation.high))
    return graph.node("Clip", [value, f"{node.name}.low", f"{node.name}.high"])


def _pads(padding: tuple[int, int, int, int]) -> list[int]:
    """ONNX wants (top, left, bottom, right)."""
    top, bottom, left, right = padding
    return [top, left, bottom, right]
