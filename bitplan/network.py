"""The captured graph that every stage speaks of: torch-free, frozen, weights kept outside.

Shapes leave the batch out. A value of rank 3 is an image (channels, height, width); rank 1 is a vector
(features,); rank 2 is (rows, features). Paddings are (top, bottom, left, right).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from math import inf, prod
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

Shape = tuple[int, ...]
Pair = tuple[int, int]
Padding = tuple[int, int, int, int]
Weights = Mapping[str, NDArray[np.float32]]
"""Arrays by `<node>.weight`, `<node>.bias` (Conv2d, Linear) and `<node>.scale`, `<node>.shift` (ScaleShift)."""


@dataclass(frozen=True, slots=True)
class Activation:
    """An element-wise function fused behind an operation: min(max(y, low), high) for `clamp`.

    `kind` is one of `KINDS`; `low` and `high` matter for `clamp` only.
    """

    kind: str = "identity"
    low: float = -inf
    high: float = inf

    KINDS: ClassVar[tuple[str, ...]] = ("identity", "clamp", "hard_swish", "silu", "sigmoid", "hard_sigmoid")

    def __post_init__(self) -> None:
        if self.kind not in self.KINDS:
            raise ValueError(f"activation kind {self.kind!r} is not one of {', '.join(self.KINDS)}")

    def __bool__(self) -> bool:
        return self.kind != "identity"


IDENTITY = Activation()
RELU = Activation("clamp", 0.0, inf)
RELU6 = Activation("clamp", 0.0, 6.0)


@dataclass(frozen=True, slots=True)
class Input:
    """A network input; its one value is what preprocessing yields (or the raw array where there is none)."""


@dataclass(frozen=True, slots=True)
class Conv2d:
    """y = activation(conv(x) + bias [+ residual]); the residual, if any, is the node's second input."""

    kernel: Pair
    stride: Pair = (1, 1)
    padding: Padding = (0, 0, 0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1
    activation: Activation = IDENTITY


@dataclass(frozen=True, slots=True)
class Linear:
    """y = activation(x W' + bias [+ residual]) over the last axis; the residual is the second input."""

    activation: Activation = IDENTITY


@dataclass(frozen=True, slots=True)
class ScaleShift:
    """y = activation(scale * x + shift), scale and shift per channel (axis 0 of an image, else the last)."""

    activation: Activation = IDENTITY


@dataclass(frozen=True, slots=True)
class Activate:
    """y = activation(x), where it could not be fused."""

    activation: Activation


@dataclass(frozen=True, slots=True)
class Add:
    """y = activation(a + b); b may be (C, 1, 1) against (C, H, W)."""

    activation: Activation = IDENTITY


@dataclass(frozen=True, slots=True)
class Mul:
    """y = activation(a * b); b may be (C, 1, 1) against (C, H, W)."""

    activation: Activation = IDENTITY


@dataclass(frozen=True, slots=True)
class Concat:
    """Joins its inputs along axis 0 (the channels of an image, the features of a vector)."""


@dataclass(frozen=True, slots=True)
class MaxPool:
    """The maximum over each window (height, width) of an image; padding never wins."""

    kernel: Pair
    stride: Pair
    padding: Padding = (0, 0, 0, 0)
    dilation: Pair = (1, 1)


@dataclass(frozen=True, slots=True)
class AveragePool:
    """The mean over each window (height, width) of an image; `count_padding` counts padding as zeros, else only the
    pixels within the image are averaged."""

    kernel: Pair
    stride: Pair
    padding: Padding = (0, 0, 0, 0)
    count_padding: bool = True


@dataclass(frozen=True, slots=True)
class Mean:
    """The mean over height and width: (C, H, W) -> (C,) or, with `keep`, (C, 1, 1)."""

    keep: bool = False


@dataclass(frozen=True, slots=True)
class Pad:
    """Adds constant entries: `padding` around the image, `channels` (before, after)."""

    padding: Padding
    channels: Pair = (0, 0)
    value: float = 0.0


@dataclass(frozen=True, slots=True)
class Slice:
    """Takes start:stop:step along each axis of the shape (step >= 1, all non-negative)."""

    ranges: tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True)
class Reshape:
    """Keeps the elements in the order of the logical (channels first) shape; the target is the node's shape."""


@dataclass(frozen=True, slots=True)
class Permute:
    """Reorders the axes (batch left out): y.shape[i] = x.shape[order[i]]."""

    order: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Softmax:
    """Softmax over axis 0 of an image, else over the last axis."""


Op = (
    Input
    | Conv2d
    | Linear
    | ScaleShift
    | Activate
    | Add
    | Mul
    | Concat
    | MaxPool
    | AveragePool
    | Mean
    | Pad
    | Slice
    | Reshape
    | Permute
    | Softmax
)
OPS: tuple[type[Any], ...] = Op.__args__
"""All operations in the order of their numbers in an artifact; append only."""

SAME_RANGE = (MaxPool, Pad, Slice, Reshape, Permute)
"""Operations whose 8-bit output shares scale and zero point with their input."""


@dataclass(frozen=True, slots=True)
class WeightShape:
    """The shape of a layer's weight [out_channels, in_channels / groups, *kernel]; linear has kernel (1, 1)."""

    out_channels: int
    in_channels: int
    kernel: Pair = (1, 1)
    groups: int = 1

    @property
    def depthwise(self) -> bool:
        """True where every output channel reads one input channel of its own."""
        return self.groups > 1 and self.groups == self.in_channels == self.out_channels

    @property
    def reduction(self) -> int:
        """Multiply-adds per output element (K)."""
        return self.in_channels // self.groups * prod(self.kernel)

    @property
    def count(self) -> int:
        """Number of weights."""
        return self.out_channels * self.reduction


@dataclass(frozen=True, slots=True)
class Node:
    """One operation and the value it makes; `shape` is that value's shape without the batch."""

    name: str
    op: Op
    inputs: tuple[str, ...]
    shape: Shape

    @property
    def activation(self) -> Activation:
        return getattr(self.op, "activation", IDENTITY)


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """What turns a raw image (0..255 or any stated scale) into the network's input: (x - mean) / std per channel,
    after an optional resize of the short side and centre crop in pixels. Empty mean and std mean none."""

    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    resize: int = 0
    crop: int = 0

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std):
            raise ValueError(
                f"mean has {len(self.mean)} values and std has {len(self.std)}; give one of each per channel"
            )
        if not all(s > 0 and np.isfinite(s) for s in self.std) or not all(np.isfinite(m) for m in self.mean):
            raise ValueError(f"mean {self.mean} must be finite and std {self.std} finite and positive")


@dataclass(frozen=True)
class Network:
    """A directed acyclic graph in topological order; validated at construction, then constant."""

    nodes: tuple[Node, ...]
    outputs: tuple[str, ...]
    preprocessing: Preprocessing = field(default_factory=Preprocessing)

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for node in self.nodes:
            if node.name in seen:
                raise ValueError(f"two nodes are called {node.name!r}")
            for name in node.inputs:
                if name not in seen:
                    raise ValueError(f"node {node.name!r} reads {name!r}, which no earlier node makes")
            if any(size < 1 for size in node.shape):
                raise ValueError(f"node {node.name!r} has the empty shape {node.shape}")
            seen.add(node.name)
        for name in self.outputs:
            if name not in seen:
                raise ValueError(f"output {name!r} is not a node")

    @cached_property
    def by_name(self) -> dict[str, Node]:
        return {node.name: node for node in self.nodes}

    @cached_property
    def readers(self) -> dict[str, tuple[Node, ...]]:
        """The nodes that read each value, in order."""
        found: dict[str, list[Node]] = {node.name: [] for node in self.nodes}
        for node in self.nodes:
            for name in dict.fromkeys(node.inputs):
                found[name].append(node)
        return {name: tuple(nodes) for name, nodes in found.items()}

    @property
    def inputs(self) -> tuple[Node, ...]:
        return tuple(node for node in self.nodes if isinstance(node.op, Input))

    @property
    def layers(self) -> tuple[Node, ...]:
        """The nodes that carry a weight tensor, i.e. those a policy decides on."""
        return tuple(node for node in self.nodes if isinstance(node.op, Conv2d | Linear))

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes)

    def weight_shape(self, node: Node) -> WeightShape:
        """The weight's shape of a layer. Raises TypeError for a node without a weight."""
        source = self.by_name[node.inputs[0]].shape
        if isinstance(node.op, Conv2d):
            return WeightShape(node.shape[0], source[0], node.op.kernel, node.op.groups)
        if isinstance(node.op, Linear):
            return WeightShape(node.shape[-1], source[-1])
        raise TypeError(f"node {node.name!r} ({type(node.op).__name__}) has no weight")

    def signature(self, node: Node) -> str:
        """What the node's latency depends on besides its variant: operation, parameters and shapes, never names."""
        op = node.op
        parts = [type(op).__name__.lower()]
        parts += ["i" + "x".join(map(str, self.by_name[name].shape)) for name in node.inputs]
        parts.append("o" + "x".join(map(str, node.shape)))
        for f in fields(op):
            value = getattr(op, f.name)
            if isinstance(value, Activation):
                value = value.kind
            parts.append(f"{f.name}={json.dumps(value)}".replace(" ", ""))
        return " ".join(parts)

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 of the graph (not of its weights), in hexadecimal."""
        plain = [[n.name, type(n.op).__name__, asdict(n.op), n.inputs, n.shape] for n in self.nodes]
        text = json.dumps([plain, self.outputs, asdict(self.preprocessing)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def weights_hash(weights: Weights) -> str:
    """SHA-256 of names, shapes and values, in hexadecimal."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        array = np.ascontiguousarray(weights[name], np.float32)
        digest.update(f"{name}{array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
