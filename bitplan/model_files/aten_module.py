"""The graph of an archive as a torch module. Operations are looked up by name among ATen's and in a short list of
arithmetic on sizes; their arguments are data. Nothing else of the file is looked at, and no text of it is evaluated."""

from __future__ import annotations

import operator
import re
from collections import Counter
from collections.abc import Mapping
from keyword import iskeyword
from typing import Any

import torch
from torch import Tensor, fx, nn

from bitplan.errors import UnsupportedError
from bitplan.model_files.archive_graph import Graph
from bitplan.model_files.torch_numbers import MEMORY_FORMATS, dtype_of

ATEN = re.compile(r"torch\.ops\.aten\.([A-Za-z]\w*)\.([A-Za-z]\w*)")
SIZES = {
    "_operator.add": operator.add,
    "_operator.sub": operator.sub,
    "_operator.mul": operator.mul,
    "_operator.floordiv": operator.floordiv,
    "_operator.getitem": operator.getitem,
    "_operator.ge": operator.ge,
    "_operator.le": operator.le,
    "_operator.gt": operator.gt,
    "_operator.lt": operator.lt,
    "_operator.eq": operator.eq,
    "_operator.ne": operator.ne,
}
"""What exported programs compute sizes with."""
TEXTS = {"gelu": "approximate", "pad": "mode", "div": "rounding_mode", "einsum": "equation", "conv2d": "padding"}
"""The only operations that may be given a text, and its name: others open files."""
CHECKS = frozenset({"_assert_tensor_metadata", "_assert_scalar", "_assert_async", "sym_constrain_range_for_size"})
RESHAPES = frozenset({"view", "reshape", "_unsafe_view", "expand"})
"""Operations whose list of sizes begins with the batch."""
NUMBERS = ("as_int", "as_ints", "as_float", "as_floats", "as_bool", "as_bools", "as_int_lists", "as_float_lists")


def build_module(graph: Graph, free_batch: bool = True) -> fx.GraphModule:
    """The graph as a module with the parameters' names; convolutions and linear layers with parameters of their own are
    nn.Conv2d and nn.Linear at their paths. `free_batch`: sizes of a batch that was fixed are taken from the input.
    Raises UnsupportedError, naming node and operation, for anything but ATen operations."""
    return _Builder(graph, free_batch).module()


class _Builder:
    def __init__(self, graph: Graph, free_batch: bool) -> None:
        self.graph, self.root, self.made = graph, nn.Module(), fx.Graph()
        self.batch = graph.batch() if free_batch else None
        self.values: dict[str, fx.Node] = {}
        self.stored = {name: path for name, path in graph.inputs if path is not None}
        self.uses = Counter(
            argument["arg"]["as_tensor"]["name"]
            for node in graph.nodes
            for argument in node["inputs"]
            if "as_tensor" in argument["arg"]
        )

    def module(self) -> fx.GraphModule:
        for name, stored in self.graph.inputs:
            if stored is None:
                self.values[name] = self.made.placeholder(self._identifier(name))
        for node in self.graph.nodes:
            self._add(node)
        outputs = [self._value(name) for name in self.graph.outputs]
        self.made.output(outputs[0] if len(outputs) == 1 else tuple(outputs))
        return fx.GraphModule(self.root, self.made, "Imported").eval().requires_grad_(False)

    def _add(self, node: Mapping[str, Any]) -> None:
        target = node["target"]
        aten = ATEN.fullmatch(target)
        overload: Any = SIZES.get(target)
        if aten:
            if aten[1] in CHECKS:
                return
            overload = getattr(getattr(torch.ops.aten, aten[1], None), aten[2], None)
        if overload is None:
            hint = "write it with torch's own tensor operations, or export with torch.export.export(...).run_decompositions()"
            raise UnsupportedError(
                f"{self.graph.path}: node {_named(node)!r} calls {target}, which is not supported; {hint}"
            )
        layer = self._layer(aten[1], node) if aten else None
        if layer is None:
            args, kwargs = self._arguments(node, aten[1] if aten else "")
            layer = self.made.call_function(overload, args, kwargs)
            layer.meta["source"] = _named(node)
        self._results(node, layer)

    def _layer(self, operation: str, node: Mapping[str, Any]) -> fx.Node | None:
        """A convolution or linear layer as a module of torch at its path, if it is one."""
        given = {argument["name"]: argument["arg"] for argument in node["inputs"]}
        if operation not in ("conv2d", "linear") or "as_string" in given.get("padding", {}):
            return None
        owned = self._owned(given.get("weight", {}), ".weight")
        bias = given.get("bias", {"as_none": True})
        if owned is None or ("as_tensor" in bias and self._owned(bias, ".bias") != owned):
            return None
        weight = self.graph.tensors[f"{owned}.weight"]
        if operation == "linear":
            layer: nn.Module = nn.Linear(weight.shape[1], weight.shape[0], "as_tensor" in bias)
        else:
            stride, padding, dilation = (
                tuple(given.get(key, {"as_ints": usual})["as_ints"])
                for key, usual in (("stride", [1, 1]), ("padding", [0, 0]), ("dilation", [1, 1]))
            )
            groups = int(given.get("groups", {"as_int": 1})["as_int"])
            layer = nn.Conv2d(
                weight.shape[1] * groups,
                weight.shape[0],
                (weight.shape[2], weight.shape[3]),
                (stride[0], stride[-1]),
                (padding[0], padding[-1]),
                (dilation[0], dilation[-1]),
                groups,
                "as_tensor" in bias,
            )
        layer.load_state_dict(
            {"weight": weight} | ({"bias": self.graph.tensors[f"{owned}.bias"]} if "as_tensor" in bias else {})
        )
        _place(self.root, owned, layer)
        return self.made.call_module(owned, (self._value(given["input"]["as_tensor"]["name"]),))

    def _owned(self, argument: Mapping[str, Any], suffix: str) -> str | None:
        """The path of the module whose parameter an argument is, if no other node reads it."""
        name = argument.get("as_tensor", {}).get("name")
        stored = self.stored.get(name, "")
        if not stored.endswith(suffix) or stored == suffix or self.uses[name] != 1:
            return None
        return stored.removesuffix(suffix)

    def _arguments(self, node: Mapping[str, Any], operation: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        sized = self._sized_anew(operation, node) if operation in RESHAPES else None
        for argument in node["inputs"]:
            name = argument["name"]
            value = (
                sized if sized is not None and name in ("size", "shape") else self._argument(node, operation, argument)
            )
            if argument.get("kind") == 2:
                kwargs[self._identifier(name)] = value
            else:
                args.append(value)
        return tuple(args), kwargs

    def _sized_anew(self, operation: str, node: Mapping[str, Any]) -> list[int] | None:
        """The sizes that a reshape is given, with the batch left open where it was fixed."""
        source = node["inputs"][0]["arg"].get("as_tensor", {}).get("name")
        result = node["outputs"][0].get("as_tensor", {}).get("name")
        if self.batch is None or source not in self.graph.values or result not in self.graph.values:
            return None
        before, after = self.graph.sizes(source), self.graph.sizes(result)
        if not before or not after or before[0] != self.batch or after[0] != self.batch or source in self.stored:
            return None
        return [-1, *(int(size) for size in after[1:] if size is not None)]

    def _argument(self, node: Mapping[str, Any], operation: str, argument: Mapping[str, Any]) -> Any:
        kind, value = next(iter(argument["arg"].items()))
        match kind:
            case "as_none":
                return None
            case "as_tensor":
                return self._value(value["name"])
            case "as_tensors":
                return [self._value(item["name"]) for item in value]
            case "as_optional_tensors":
                return [self._value(item["as_tensor"]["name"]) if "as_tensor" in item else None for item in value]
            case "as_sym_int" | "as_sym_float" | "as_sym_bool":
                return self._number(value)
            case "as_sym_ints" | "as_sym_floats" | "as_sym_bools":
                return [self._number(item) for item in value]
            case "as_scalar_type":
                return dtype_of(value)
            case "as_memory_format":
                return MEMORY_FORMATS[value]
            case "as_layout":
                return torch.strided
            case "as_device":
                return torch.device("cpu")
            case "as_string" if TEXTS.get(operation) == argument["name"]:
                return str(value)
        if kind in NUMBERS:
            return value
        raise UnsupportedError(
            f"{self.graph.path}: node {_named(node)!r} ({node['target']}) has an argument {argument['name']!r} of the kind "
            f"{kind}, which is not supported; compute it outside of the module"
        )

    def _identifier(self, name: str) -> str:
        """A name of an argument, as it may stand in the Python code that torch.fx writes."""
        if not name.isidentifier() or iskeyword(name):
            raise UnsupportedError(f"{self.graph.path}: an argument is called {name!r}, which is no name in Python")
        return name

    def _number(self, value: Mapping[str, Any]) -> Any:
        return self._value(value["as_name"]) if "as_name" in value else next(iter(value.values()))

    def _value(self, name: str) -> fx.Node:
        if name in self.stored and name not in self.values:
            path = self.stored[name]
            _place(self.root, path, self.graph.tensors[path])
            self.values[name] = self.made.get_attr(path)
        return self.values[name]

    def _results(self, node: Mapping[str, Any], made: fx.Node) -> None:
        outputs = node["outputs"]
        if len(outputs) == 1 and "as_tensors" not in outputs[0]:
            names = [next(iter(outputs[0].values()))]
            self.values[_name_of(names[0])] = made
            return
        parts = outputs[0]["as_tensors"] if len(outputs) == 1 else [next(iter(output.values())) for output in outputs]
        for index, part in enumerate(parts):
            if part is not True:  # an output that is none
                self.values[_name_of(part)] = self.made.call_function(operator.getitem, (made, index))


def _name_of(output: Mapping[str, Any]) -> str:
    return str(output.get("name") or output.get("as_name"))


def _named(node: Mapping[str, Any]) -> str:
    """How errors call a node: as torch does, or by its first result."""
    outputs = node["outputs"]
    return str(node.get("name") or (_name_of(next(iter(outputs[0].values()))) if outputs else "?"))


def _place(root: nn.Module, path: str, thing: nn.Module | Tensor) -> None:
    """Puts a module, or a tensor as a buffer, at a dotted path."""
    *parents, last = path.split(".")
    for name in parents:
        if not hasattr(root, name):
            root.add_module(name, nn.Module())
        root = getattr(root, name)
    if isinstance(thing, nn.Module):
        if hasattr(root, last):  # what was stored below its path before
            for name, child in getattr(root, last).named_children():
                thing.add_module(name, child)
        root.add_module(last, thing)
    elif not hasattr(root, last):
        root.register_buffer(last, thing)
