"""One ATen call while it is lowered: its arguments by name, what it may add to the draft, and how it refuses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor

from bitplan.capture.draft import Draft, DraftNode, FloatArray
from bitplan.errors import UnsupportedError
from bitplan.network import Op, Pair, Shape

REMEDY = "replace it by a supported operation, or move it out of the module (before its inputs or behind its outputs)"


@dataclass(frozen=True)
class Expanded:
    """A (C, 1, 1) value that was expanded to `shape`; only Add and Mul, which broadcast by themselves, take it."""

    source: DraftNode
    shape: Shape


Operand = DraftNode | Expanded | Tensor | float | int


@dataclass(frozen=True)
class Call:
    """`arguments` by their names in the operation's schema, networks' values as DraftNodes; `shape` is that of the
    result (of its first tensor) without the batch; `layer` says whether the module is one of torch's own."""

    draft: Draft
    operation: str
    path: str
    layer: bool
    arguments: Mapping[str, Any]
    parameter_names: Mapping[str, str]
    shape: Shape
    batch: int

    def fail(self, reason: str, remedy: str = REMEDY) -> NoReturn:
        """Raises UnsupportedError that names the operation and the module path."""
        place = f"module {self.path!r}" if self.path else "the module itself"
        raise UnsupportedError(f"{self.operation} in {place}: {reason}; {remedy}")

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]

    def node(self, name: str = "self") -> DraftNode:
        """An argument that has to be a value of the network."""
        value = self.arguments[name]
        if isinstance(value, Expanded):
            self.fail(f"{name!r} was expanded to {value.shape}, which only an add or a mul right behind can read")
        if not isinstance(value, DraftNode):
            self.fail(f"{name!r} is a constant where a value of the network is needed")
        return value

    def image(self, name: str = "self") -> DraftNode:
        node = self.node(name)
        if len(node.shape) != 3:
            self.fail(f"needs an image [N, C, H, W], not [N, {', '.join(map(str, node.shape))}]")
        return node

    def constant(self, name: str) -> Tensor | None:
        """An argument that has to be fixed (a parameter, a buffer or computed from such), or None."""
        value = self.arguments[name]
        if value is not None and not isinstance(value, Tensor):
            self.fail(f"{name!r} depends on the input", "bitplan executes layers with fixed weights only")
        return value

    def pair(self, name: str) -> Pair:
        """A (height, width) argument, which may be written as one number."""
        value = self.arguments[name]
        height, width = (value[0], value[-1]) if isinstance(value, Sequence) else (value, value)
        return int(height), int(width)

    def axis(self, node: DraftNode, dim: int) -> int:
        """The axis of `node.shape` that `dim` (which counts the batch) means."""
        axis = dim if dim >= 0 else dim + 1 + len(node.shape)
        if axis == 0:
            self.fail("works along the batch axis", "every image must be computed by itself")
        return axis - 1

    def default_name(self, kind: str) -> str:
        """Readable: a torch module's own path, else the path of the module whose forward calls and what it calls."""
        if self.layer and self.path:
            return self.path
        return f"{self.path}.{kind}" if self.path else kind

    def add(
        self,
        op: Op,
        inputs: Sequence[DraftNode],
        shape: Shape | None = None,
        arrays: Mapping[str, FloatArray] | None = None,
        name: str = "",
    ) -> DraftNode:
        """Adds a node (whose value has this call's shape unless told otherwise)."""
        shape = self.shape if shape is None else shape
        if not shape:
            self.fail("yields one number per image without an axis", "keep an axis of size one ([N, 1])")
        name = name or self.default_name(type(op).__name__.lower())
        owner = name if arrays else self.path
        return self.draft.add(DraftNode(name, op, list(inputs), shape, dict(arrays or {}), owner))


def array(tensor: Tensor) -> FloatArray:
    """A float32 copy."""
    return np.array(tensor.detach().to(torch.float32).numpy(), np.float32)
