"""torch.fx traces of modules that compute paddings from sizes, which `torch.fx.symbolic_trace` refuses."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, fx, nn


class Sized(fx.Proxy):
    """A proxy whose shape is that of the example, as numbers."""

    @property
    def shape(self) -> torch.Size:
        value: Tensor = self.node.meta["value"]
        return value.shape


class SizedTracer(fx.Tracer):
    """Executes every node on an example while it records it."""

    def __init__(self, module: nn.Module, example: Tensor) -> None:
        super().__init__()
        self.executed = copy.deepcopy(module)  # what tracing does to the modules' own parameters does not reach it
        self.example = example

    def proxy(self, node: fx.Node) -> Sized:
        node.meta["value"] = self.value(node)
        return Sized(node, self)

    @torch.no_grad()
    def value(self, node: fx.Node) -> Any:
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda known: known.meta["value"])
        match node.op:
            case "placeholder":
                return self.example
            case "call_module":  # `forward`: calls are what is being traced
                return self.executed.get_submodule(str(node.target)).forward(*args, **kwargs)
            case "call_method":
                return getattr(args[0], str(node.target))(*args[1:], **kwargs)
            case "get_attr":
                return self.executed.get_parameter(str(node.target))
        return node.target(*args, **kwargs) if callable(node.target) else args


def with_fixed_sizes(module: nn.Module, example: Tensor) -> fx.GraphModule:
    """The same module for images of this example's size [N, C, H, W], with its submodules' names, in a form that torch.fx
    can trace again."""
    graph = SizedTracer(module, example).trace(module)
    for node in graph.nodes:
        node.meta.clear()  # examples are large
    return fx.GraphModule(module, graph)
