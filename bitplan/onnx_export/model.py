"""From the contents of an artifact to an ONNX model: the same numbers, by the meaning that `bitplan/formats.py` states."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from bitplan import __version__
from bitplan.errors import UnsupportedError
from bitplan.formats import Formats, Range, derive_formats, residual_format
from bitplan.kernels.read_artifact import Contents
from bitplan.network import Activate, Conv2d, Input, Linear, Node
from bitplan.onnx_export.codes import clamped_anyway, quantised
from bitplan.onnx_export.graph import Graph
from bitplan.onnx_export.layers import layer, stored_as
from bitplan.onnx_export.operations import activated, operation
from bitplan.variant import F32, U8

OPSET = 21
"""The first with 4-bit integers."""
IR_VERSION = 10


@dataclass(frozen=True)
class ExportedLayer:
    """How a layer was written: its encoding here, ONNX's type of its weights (float32: dequantised, unless it is float32 here
    too) and of its input's codes."""

    name: str
    encoding: str
    weights: str
    activation: str

    @property
    def dequantised(self) -> bool:
        """Whether ONNX holds the weights in more bits than the artifact, for it has no such encoding."""
        return self.weights == "float32" and self.encoding != "float32"


def onnx_model(contents: Contents, four_bits: str = "packed") -> tuple[onnx.ModelProto, list[ExportedLayer]]:
    """The model, with float32 inputs on the images' own scale and a free batch, and what became of each layer.
    Raises UnsupportedError for the layers of a torch module (`--hybrid`), which are no network."""
    return _Writer(contents, four_bits).model()


class _Writer:
    def __init__(self, contents: Contents, four_bits: str) -> None:
        self.contents, self.four_bits, self.network = contents, four_bits, contents.network
        self.formats: Formats = derive_formats(self.network, {n: e.variant for n, e in contents.layers.items()})
        self.graph = Graph(
            [node.name for node in self.network.inputs] + [f"{name}_out" for name in self.network.outputs]
        )
        self.floats: dict[str, str] = {}
        self.coded: dict[tuple[str, str], str] = {}
        needed = self.network.outputs
        unread = [n.name for n in self.network.layers if not self.network.readers[n.name] and n.name not in needed]
        if unread:
            raise UnsupportedError(
                f"nothing reads the layer {unread[0]!r}: the artifact holds the layers of a torch module (--hybrid) and not a network; "
                "export whole networks"
            )

    def model(self) -> tuple[onnx.ModelProto, list[ExportedLayer]]:
        for node in self.network:
            self._node(node)
        for name in self.network.outputs:
            self.graph.add("Identity", [self.floats[name]], f"{name}.output", output=f"{name}_out")
        proto = helper.make_graph(
            self.graph.nodes,
            "bitplan",
            [_described(node.name, node.shape) for node in self.network.inputs],
            [_described(f"{name}_out", self.network.by_name[name].shape) for name in self.network.outputs],
            self.graph.constants,
        )
        model = helper.make_model(
            proto,
            opset_imports=[helper.make_opsetid("", OPSET)],
            producer_name="bitplan",
            producer_version=__version__,
            ir_version=IR_VERSION,
        )
        helper.set_model_props(model, {"bitplan.policy": self.contents.policy_hash.hex()})
        onnx.checker.check_model(model, full_check=True)
        return model, [self._said(node) for node in self.network.layers]

    def _said(self, node: Node) -> ExportedLayer:
        encoded = self.contents.layers[node.name]
        form = encoded.variant.activation
        return ExportedLayer(node.name, encoded.variant.encoding, stored_as(encoded, self.four_bits), form)

    def _node(self, node: Node) -> None:
        if isinstance(node.op, Input):
            self.floats[node.name] = self._input(node)
        elif isinstance(node.op, Conv2d | Linear):
            self._layer(node)
        else:
            form = self.formats.read[node.name]
            made = operation(self.graph, node, [self._read(n, form) for n in node.inputs], self.contents.weights)
            self.floats[node.name] = self._activated(node, made)

    def _layer(self, node: Node) -> None:
        encoded = self.contents.layers[node.name]
        form = encoded.variant.activation
        held = None if form == F32 else self._range(node.inputs[0], form)
        x = self._read(node.inputs[0], form)
        in_bytes = form == U8 and self.formats.kept[node.name] == {U8} and len(node.inputs) == 1
        made = layer(self.graph, node, encoded, x, held, self.four_bits, in_bytes)
        for residual in node.inputs[1:]:
            made = self.graph.add("Add", [made, self._read(residual, residual_format(form))], f"{node.name}.sum")
        self.floats[node.name] = self._activated(node, made)

    def _activated(self, node: Node, made: str) -> str:
        if isinstance(node.op, Activate) and self.formats.read[node.name] == U8:
            # ONNX Runtime makes one pair of conversions of two with a Clip or nothing in between, with a range of its own.
            return activated(self.graph, made, node.activation, node.name, by_bounds=True)
        if self.formats.kept[node.name] == {U8} and clamped_anyway(node.activation, self._range(node.name, U8)):
            return made
        return activated(self.graph, made, node.activation, node.name)

    def _input(self, node: Node) -> str:
        mean, std = self.network.preprocessing.mean, self.network.preprocessing.std
        if not mean or len(node.shape) != 3:
            return node.name
        size = (-1, 1, 1)
        shift = self.graph.floats(np.array(mean, np.float32).reshape(size), f"{node.name}.mean")
        scale = self.graph.floats(np.array(std, np.float32).reshape(size), f"{node.name}.std")
        centred = self.graph.add("Sub", [node.name, shift], f"{node.name}.centred")
        return self.graph.add("Div", [centred, scale], f"{node.name}.normalised")

    def _read(self, name: str, form: str) -> str:
        """A value as its reader reads it."""
        if form == F32:
            return self.floats[name]
        if (name, form) not in self.coded:
            self.coded[name, form] = quantised(self.graph, self.floats[name], name, self._range(name, form), form)
        return self.coded[name, form]

    def _range(self, name: str, form: str) -> Range:
        return self.contents.ranges[name][form]


def _described(name: str, shape: tuple[int, ...]) -> Any:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", *shape])
