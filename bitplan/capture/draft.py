"""The network while it is being made: like Network, but nodes can still be changed, merged and dropped."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bitplan.errors import DataError, UnsupportedError
from bitplan.network import IDENTITY, Activation, Conv2d, Input, Linear, Network, Node, Op, Shape

FloatArray = NDArray[np.float32]


@dataclass(eq=False)
class DraftNode:
    """A node and the arrays that go with it (`weight`, `bias` or `scale`, `shift`). `name` is the wanted one; `owner`
    is the path of the module that the node is all of, if any."""

    name: str
    op: Op
    inputs: list[DraftNode]
    shape: Shape
    arrays: dict[str, FloatArray] = field(default_factory=dict)
    owner: str = ""

    @property
    def activation(self) -> Activation:
        found: Activation = getattr(self.op, "activation", IDENTITY)
        return found


class Draft:
    """Nodes in topological order."""

    def __init__(self, reserved: Collection[str]) -> None:
        """`reserved`: the paths of all modules."""
        self.nodes: list[DraftNode] = []
        self.outputs: list[DraftNode] = []
        self._reserved = frozenset(reserved)
        self._readers: dict[DraftNode, list[DraftNode]] | None = None

    def add(self, node: DraftNode) -> DraftNode:
        self.nodes.append(node)
        self.changed()
        return node

    def __contains__(self, node: DraftNode) -> bool:
        return node in self.nodes

    def changed(self) -> None:
        """To be called after any change of edges."""
        self._readers = None

    def readers(self, node: DraftNode) -> list[DraftNode]:
        if self._readers is None:
            self._readers = {n: [] for n in self.nodes}
            for reader in self.nodes:
                for source in dict.fromkeys(reader.inputs):
                    self._readers[source].append(reader)
        return self._readers[node]

    def only_feeds(self, node: DraftNode, reader: DraftNode) -> bool:
        """Whether nothing but one input of `reader` needs the value of `node`."""
        return node not in self.outputs and self.readers(node) == [reader] and reader.inputs.count(node) == 1

    def replace(self, old: DraftNode, new: DraftNode) -> None:
        """Everybody who read `old` reads `new`; `old` is dropped."""
        for reader in self.readers(old):
            reader.inputs = [new if source is old else source for source in reader.inputs]
        self.outputs = [new if output is old else output for output in self.outputs]
        self.nodes.remove(old)
        self.changed()

    def drop_dead(self) -> None:
        """Drops nodes on which no output depends; inputs stay, they belong to the interface."""
        needed = set(self.outputs)
        for node in reversed(self.nodes):
            if node in needed:
                needed.update(node.inputs)
        self.nodes = [node for node in self.nodes if node in needed or isinstance(node.op, Input)]
        self.changed()

    def finish(self) -> tuple[Network, dict[str, FloatArray]]:
        """The network (without preprocessing) and its weights.
        Raises UnsupportedError for outputs that are one value twice, DataError for weights that are not finite."""
        for index, node in enumerate(self.outputs):
            if node in self.outputs[:index]:
                raise UnsupportedError(
                    f"outputs {self.outputs.index(node)} and {index} are the same value ({node.name!r}); return it once"
                )
            if not isinstance(node.op, Input | Conv2d | Linear):
                node.name, node.owner = f"output_{index}" if index else "output", ""
        self._name_nodes()
        weights: dict[str, FloatArray] = {}
        for node in self.nodes:
            for kind, array in node.arrays.items():
                if not np.all(np.isfinite(array)):
                    raise DataError(
                        f"the {kind} of {node.name!r} is not finite once constants and batch norm are folded into it; "
                        "look for a negative or overflowing running variance or weight"
                    )
                weights[f"{node.name}.{kind}"] = np.ascontiguousarray(array, np.float32)
        nodes = tuple(Node(n.name, n.op, tuple(source.name for source in n.inputs), n.shape) for n in self.nodes)
        return Network(nodes, tuple(node.name for node in self.outputs)), weights

    def _name_nodes(self) -> None:
        """Makes names unique, layers first: `name`, `name.1` and so on; a module's path is kept for the module."""
        used: set[str] = set()
        for node in sorted(self.nodes, key=lambda node: not isinstance(node.op, Conv2d | Linear)):
            candidate, count = node.name, 0
            while candidate in used or (candidate in self._reserved and candidate != node.owner):
                count += 1
                candidate = f"{node.name}.{count}"
            used.add(candidate)
            node.name = candidate
