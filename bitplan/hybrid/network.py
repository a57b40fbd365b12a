"""The leaves as a network: each a node that reads an input of its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bitplan.errors import UsageError
from bitplan.hybrid.leaves import Call, Leaf
from bitplan.kernels.torch_modules import float_weights, layer_nodes, operation_of
from bitplan.network import Input, Network, Node
from bitplan.variant import Variant

Menu = Mapping[str, Sequence[Variant]]


class CallNetwork(Network):
    """Every distinct call of the leaves, each as a layer of its own. What its latency is of is a call of a drop-in from
    torch, to which the conversions of its input and output belong: nothing that a whole network executes."""

    def signature(self, node: Node) -> str:
        return f"torch {super().signature(node)}"


@dataclass(frozen=True)
class HybridNetwork(Network):
    """The leaves by their paths. `calls` are those of one inference, by leaf. A layer's latency is that of all its
    calls; the steps of inputs are no work of their own, but the first stands for what stays in torch."""

    calls: Mapping[str, tuple[Call, ...]] = field(default_factory=dict)

    def signature(self, node: Node) -> str:
        if isinstance(node.op, Input):
            return f"torch input of {node.name}"
        return f"torch calls of {node.name}"


def hybrid_network(leaves: Sequence[Leaf]) -> HybridNetwork:
    """The network of all leaves. Its output is the last one; of the others, which nothing reads, f32 is kept too.
    Raises UsageError where there is no leaf."""
    if not leaves:
        raise UsageError(
            "the model has no Conv2d or Linear layer that a drop-in could take the place of"
            "; bitplan plans these two kinds of layers only"
        )
    nodes = [node for leaf in leaves for node in layer_nodes(leaf.name, leaf.module, leaf.largest)]
    return HybridNetwork(tuple(nodes), (leaves[-1].name,), calls={leaf.name: leaf.calls for leaf in leaves})


def hybrid_weights(leaves: Iterable[Leaf]) -> dict[str, NDArray[np.float32]]:
    """Float32 weights and biases of the leaves by name."""
    return {name: array for leaf in leaves for name, array in float_weights(leaf.name, leaf.module).items()}


def call_network(
    leaves: Sequence[Leaf], menu: Menu
) -> tuple[CallNetwork, dict[str, tuple[Variant, ...]], dict[tuple[str, Call], str]]:
    """The network of distinct calls, its menu (the union of the leaves' menus), and which of its layers a leaf's call
    is."""
    names: dict[tuple[object, ...], str] = {}
    nodes: list[Node] = []
    offered: dict[str, tuple[Variant, ...]] = {}
    places: dict[tuple[str, Call], str] = {}
    for leaf in leaves:
        for call in leaf.calls:
            _, layer = layer_nodes(leaf.name, leaf.module, call.shape)
            key = (operation_of(leaf.module), call.shape, layer.shape)
            if key not in names:
                names[key] = f"call{len(names)}"
                nodes += layer_nodes(names[key], leaf.module, call.shape)
            name = places[leaf.name, call] = names[key]
            offered[name] = tuple(dict.fromkeys((*offered.get(name, ()), *menu[leaf.name])))
    return CallNetwork(tuple(nodes), (nodes[-1].name,)), offered, places
