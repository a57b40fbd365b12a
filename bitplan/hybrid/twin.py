"""A leaf as it will compute, simulated in torch: what losses are measured with before anything is packed."""

from __future__ import annotations

from torch import Tensor, nn

from bitplan.encodings import EncodedLayer
from bitplan.formats import Range
from bitplan.hybrid.leaves import Leaf
from bitplan.kernels.torch_modules import float_weights, layer_network
from bitplan.network import Network, Node
from bitplan.simulate import Simulator, fake_quantise
from bitplan.variant import F32

Held = dict[str, Range]
"""The range of a leaf's input by format."""


class Twin(nn.Module):
    """A leaf with encoded weights; its input is read in the variant's activation format."""

    def __init__(self, simulator: Simulator, layer: EncodedLayer, held: Held) -> None:
        super().__init__()
        self.simulator, self.layer, self.held = simulator, layer, held

    def forward(self, input: Tensor) -> Tensor:
        node, form = layer_node(self.simulator.network), self.layer.variant.activation
        if form == F32:
            return self.simulator.node(node, [input], self.layer)
        held = self.held[form]
        return self.simulator.node(node, [fake_quantise(input, held, form)], self.layer, held)


def leaf_simulator(leaf: Leaf) -> Simulator:
    """A simulator of the leaf alone, for inputs of any size."""
    return Simulator(layer_network(leaf.name, leaf.module, leaf.largest), float_weights(leaf.name, leaf.module))


def layer_node(network: Network) -> Node:
    """The one layer of a leaf's network."""
    return network.nodes[1]
