"""From the nodes of an ONNX graph to a torch module.

Every value is one of three kinds: a constant, known now; sizes, computed in numpy from the shape of a tensor while the
network runs (what exporters write around a reshape); or a tensor. What depends on constants alone is computed here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from torch import fx, nn

from bitplan.errors import UnsupportedError
from bitplan.model_files import onnx_functions
from bitplan.model_files.onnx_model import OWN, opset_of
from bitplan.model_files.onnx_names import identifier, layer_path

Constant = NDArray[Any]


@dataclass(frozen=True)
class Sizes:
    """Integers that follow from shapes, as a numpy array while the network runs."""

    node: fx.Node


Value = Constant | Sizes | fx.Node
REMEDY = (
    "replace it before exporting, or cut the file there (onnx.utils.extract_model); networks of torch can be planned with such "
    "parts left in torch: --hybrid with --model pkg.mod:build"
)


def build_module(path: Path, model: onnx.ModelProto, batch: int | None) -> fx.GraphModule:
    """`batch`: the number of images that the file fixes, which the module leaves open; None where it may vary.
    Raises UnsupportedError, naming node and operation, for what has no counterpart."""
    return Builder(path, model, batch).module()


class Builder:
    """What lowerings are given: they ask for inputs and attributes of the node, and add calls."""

    def __init__(self, path: Path, model: onnx.ModelProto, batch: int | None) -> None:
        self.path, self.model, self.batch, self.opset = path, model, batch, opset_of(model)
        self.root, self.made = nn.Module(), fx.Graph()
        self.values: dict[str, Value | None] = {"": None}
        self.sizes = _known_sizes(model)
        self.buffers: dict[str, str] = {}
        self.node = onnx.NodeProto()

    def module(self) -> fx.GraphModule:
        from bitplan.model_files.onnx_lowerings import LOWERINGS

        graph = self.model.graph
        for tensor in graph.initializer:
            self.values[tensor.name] = numpy_helper.to_array(tensor)
        for value in graph.input:
            if value.name not in self.values:
                self.values[value.name] = self.made.placeholder(identifier(value.name))
        for node in graph.node:
            self.node = node
            if node.domain not in OWN:
                self.fail(f"belongs to {node.domain}, not to ONNX itself")
            self._add(LOWERINGS)
        outputs = []
        for output in graph.output:
            found = self.values.get(output.name)
            if not isinstance(found, fx.Node):
                raise UnsupportedError(
                    f"{self.path}: the output {output.name!r} does not depend on the input; leave it out"
                )
            outputs.append(found)
        self.made.output(outputs[0] if len(outputs) == 1 else tuple(outputs))
        module = fx.GraphModule(self.root, self.made, "Imported").eval().requires_grad_(False)
        module.graph.eliminate_dead_code()
        module.recompile()
        return module

    def _add(self, lowerings: Mapping[str, Any]) -> None:
        node = self.node
        inputs = [self.values[name] for name in node.input if name]
        kind = node.op_type
        if kind in ("Shape", "Size") and isinstance(inputs[0], fx.Node):
            bounds = (self.attribute("start", 0), self.attribute("end", None))
            made = self.made.call_function(onnx_functions.shape, (inputs[0], *bounds))
            self.values[node.output[0]] = Sizes(made if kind == "Shape" else self.made.call_function(np.prod, (made,)))
        elif not any(isinstance(value, fx.Node) for value in inputs) and not _has_graph(node):
            self._of_sizes(inputs) if any(isinstance(value, Sizes) for value in inputs) else self._fold(inputs)
        elif kind not in lowerings:
            self.fail("is not supported")
        else:
            found = lowerings[kind](self)
            for name, value in zip(node.output, found if isinstance(found, tuple) else (found,), strict=False):
                self.values[name] = value

    def _fold(self, inputs: list[Any]) -> None:
        by_name = dict(zip([name for name in self.node.input if name], inputs, strict=True))
        results = self._evaluator().run(*by_name.values())
        self.values.update({name: np.asarray(value) for name, value in zip(self.node.output, results, strict=False)})

    def _of_sizes(self, inputs: list[Any]) -> None:
        evaluator = f"sizes_{len(self.made.nodes)}"
        setattr(self.root, evaluator, self._evaluator())
        by_name = dict(zip([name for name in self.node.input if name], inputs, strict=True))
        given = [value.node if isinstance(value, Sizes) else self._kept(value) for value in by_name.values()]
        made = self.made.call_function(onnx_functions.evaluate, (self.made.get_attr(evaluator), *given))
        self.values[self.node.output[0]] = Sizes(made)

    def _evaluator(self) -> onnx_functions.SizeNode:
        names = [name for name in dict.fromkeys(self.node.input) if name]
        node = onnx.NodeProto()
        node.CopyFrom(self.node)
        graph = helper.make_graph(
            [node],
            "one",
            [onnx.ValueInfoProto(name=name) for name in names],
            [onnx.ValueInfoProto(name=name) for name in node.output if name],
        )
        try:
            model = helper.make_model(graph, opset_imports=self.model.opset_import)
            return onnx_functions.SizeNode(model.SerializeToString())
        except (NotImplementedError, RuntimeError) as error:
            self.fail(f"cannot be computed from constants ({error})")

    def _kept(self, value: Constant) -> fx.Node:
        name = f"constant_{len(self.made.nodes)}"
        setattr(self.root, name, value)
        return self.made.get_attr(name)

    # -- for lowerings ---------------------------------------------------------------------------------------------

    def fail(self, reason: str, remedy: str = REMEDY) -> NoReturn:
        """Raises UnsupportedError that names the node and its operation."""
        name = self.node.name or (self.node.output[0] if self.node.output else "?")
        raise UnsupportedError(
            f"{self.path}: {self.node.op_type} (node {name!r}, opset {self.opset}): {reason}; {remedy}"
        )

    def attribute(self, name: str, usual: Any) -> Any:
        for attribute in self.node.attribute:
            if attribute.name == name:
                value = helper.get_attribute_value(attribute)
                return value.decode() if isinstance(value, bytes) else value
        return usual

    def given(self, place: int) -> bool:
        return len(self.node.input) > place and self.node.input[place] != ""

    def tensor(self, place: int = 0) -> fx.Node:
        """An input as a tensor; a constant becomes a buffer."""
        value = self.values[self.node.input[place]]
        if isinstance(value, fx.Node):
            return value
        if not isinstance(value, np.ndarray):
            self.fail(f"input {place} ({self.node.input[place]!r}) is computed from the shape of the input")
        return self.buffer(self.node.input[place], value)

    def constant(self, place: int) -> Constant:
        """An input that has to be fixed."""
        value = self.values[self.node.input[place]]
        if not isinstance(value, np.ndarray):
            self.fail(f"input {place} ({self.node.input[place]!r}) depends on the input; it must be fixed")
        return value

    def is_constant(self, place: int) -> bool:
        return self.given(place) and isinstance(self.values[self.node.input[place]], np.ndarray)

    def numbers(self, place: int, attribute: str = "") -> Any:
        """Sizes, axes and the like: an input, in older opsets an attribute; a tuple or (from shapes) a node; None where it
        was left out."""
        if attribute and self.attribute(attribute, None) is not None:
            return tuple(self.attribute(attribute, None))
        if not self.given(place):
            return None
        value = self.values[self.node.input[place]]
        if isinstance(value, Sizes):
            return value.node
        found = self.constant(place)
        return tuple(found.reshape(-1).tolist())

    def number(self, place: int, attribute: str = "", usual: float | None = None) -> Any:
        """The same for a single number."""
        if attribute and self.attribute(attribute, None) is not None:
            return self.attribute(attribute, None)
        return self.constant(place).reshape(-1)[0].item() if self.given(place) else usual

    def call(self, function: Any, *args: Any) -> fx.Node:
        made = self.made.call_function(function, args)
        made.meta["source"] = f"{self.node.op_type} {self.node.name or self.node.output[0]}"
        return made

    def buffer(self, name: str, value: Constant) -> fx.Node:
        """A constant tensor of the module, float32 where it is of floats."""
        if name not in self.buffers:
            holder, last = self._child("constants"), re.sub(r"\W", "_", name)
            while hasattr(holder, last):
                last += "_"
            array = np.array(value, np.float32 if value.dtype.kind == "f" else None)
            holder.register_buffer(last, torch.from_numpy(array))
            self.buffers[name] = f"constants.{last}"
        return self.made.get_attr(self.buffers[name])

    def layer(self, layer: nn.Module, weight: Constant, bias: Constant | None, x: fx.Node) -> fx.Node:
        """Adds a convolution or linear layer with these parameters at the path that its names tell."""
        state = {"weight": weight} | ({} if bias is None else {"bias": bias})
        layer.load_state_dict({key: torch.from_numpy(np.array(value, np.float32)) for key, value in state.items()})
        path = self._free_path()
        parent, _, last = path.rpartition(".")
        self._child(parent).add_module(last, layer)
        return self.made.call_module(path, (x,))

    def free_batch(self, sizes: Any) -> bool:
        """Whether the first of these fixed sizes is the batch that the file fixes: input and output have it in front."""
        before, after = (self.sizes.get(name) for name in (self.node.input[0], self.node.output[0]))
        fixed = self.batch and isinstance(sizes, tuple) and sizes and before and after
        return bool(fixed and before and after and before[0] in (self.batch, None) and after[0] == self.batch)

    def _free_path(self) -> str:
        path = layer_path(self.node)
        taken = {name for name, child in self.root.named_modules() if not _is_folder(child)}
        candidate, count = path, 0
        while candidate in taken or any(name.startswith(f"{candidate}.") for name in taken) or _below(candidate, taken):
            count += 1
            candidate = f"{path}_{count}"
        return candidate

    def _child(self, path: str) -> nn.Module:
        module = self.root
        for name in filter(None, path.split(".")):
            if name not in module._modules:
                module.add_module(name, nn.Module())
            module = getattr(module, name)
        return module


def _is_folder(module: nn.Module) -> bool:
    return type(module) is nn.Module


def _below(path: str, taken: set[str]) -> bool:
    return any(path.startswith(f"{name}.") for name in taken)


def _has_graph(node: onnx.NodeProto) -> bool:
    return any(
        attribute.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for attribute in node.attribute
    )


def _known_sizes(model: onnx.ModelProto) -> dict[str, tuple[int | None, ...]]:
    """The sizes of all values as far as ONNX can infer them."""
    try:
        bare = onnx.ModelProto()
        bare.CopyFrom(model)
        del bare.graph.value_info[:]  # what exporters noted there is vaguer than what follows from the input
        graph = onnx.shape_inference.infer_shapes(bare, data_prop=True).graph
    except (ValueError, RuntimeError, onnx.shape_inference.InferenceError):
        graph = model.graph
    return {
        value.name: tuple(d.dim_value if d.HasField("dim_value") else None for d in value.type.tensor_type.shape.dim)
        for value in (*graph.input, *graph.value_info, *graph.output)
    }
