"""Learned rounding: which layers go together, where levels may go, and what a block gains."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from bitplan.encodings import default_menu, encoding_of
from bitplan.encodings.levels import LevelEncoding
from bitplan.network import RELU, Conv2d, Input, Linear, Network, Node
from bitplan.policies.realise import block_rounding, quantise, realise
from bitplan.policies.realise.block_rounding import Sides, learn_rounding
from bitplan.policies.realise.blocks import blocks_of
from bitplan.policies.realise.moves import Moves
from bitplan.simulate import Simulator
from bitplan.variant import FLOAT32, Variant

torch = pytest.importorskip("torch")

MOVING = [v for v in default_menu() if v != FLOAT32 and v.encoding != "xor"]


def chain(count):
    """Convolutions in a row, a pool among them."""
    nodes = [Node("x", Input(), (), (2, 4, 4))]
    for number in range(count):
        nodes.append(Node(f"c{number}", Conv2d((1, 1), activation=RELU), (nodes[-1].name,), (2, 4, 4)))
    network = Network(tuple(nodes), (nodes[-1].name,))
    weights = {}
    for node in network.layers:
        weights |= {
            f"{node.name}.weight": np.eye(2, dtype=np.float32)[..., None, None],
            f"{node.name}.bias": np.zeros(2),
        }
    return Simulator(network, weights)


class TestBlocks:
    def test_residual_blocks_stay_whole_and_chains_are_cut(self, small):
        blocks = blocks_of(Simulator(small.network, small.weights))
        assert [block.layers for block in blocks] == [
            ("stem",),
            ("depthwise", "project"),
            ("expand", "join"),
            ("classifier",),
        ]
        assert [len(block.layers) for block in blocks_of(chain(7))] == [3, 3, 1]

    def test_blocks_cover_all_nodes_behind_the_input_once(self, small):
        for simulator in (Simulator(small.network, small.weights), chain(5)):
            blocks = blocks_of(simulator)
            assert blocks[0].start == 1 and blocks[-1].stop == len(simulator.network.nodes)
            assert all(a.stop == b.start for a, b in pairwise(blocks))
            assert blocks[-1].outputs == simulator.network.outputs

    def test_branches_that_never_join_are_one_block(self):
        nodes = (
            Node("x", Input(), (), (3,)),
            Node("a", Linear(), ("x",), (2,)),
            Node("b", Linear(), ("x",), (2,)),
        )
        weights = {f"{n}.{k}": np.zeros(s, np.float32) for n in "ab" for k, s in (("weight", (2, 3)), ("bias", (2,)))}
        (block,) = blocks_of(Simulator(Network(nodes, ("a", "b")), weights))
        assert block.layers == block.outputs == ("a", "b")


class TestMoves:
    @pytest.mark.parametrize("variant", MOVING, ids=str)
    def test_levels_arrive_at_neighbours_on_their_grid_and_can_be_packed(self, variant):
        random = np.random.default_rng(0)
        weight = random.normal(size=(6, 5, 3, 3)).astype(np.float32)
        encoding = encoding_of(variant)
        assert isinstance(encoding, LevelEncoding)
        layer = encoding.quantise(weight, np.zeros(6, np.float32), variant)
        moves = Moves(layer, weight)
        assert np.array_equal(moves.arrived().levels, layer.levels)  # nothing has pulled at them
        with torch.no_grad():
            moves.offset.copy_(torch.from_numpy(random.uniform(-2, 2, weight.shape).astype(np.float32)))
        moves.constrain()
        found = moves.arrived()
        assert not np.array_equal(found.levels, layer.levels)
        rows, grid = found.levels.reshape(6, 45), encoding.grid(layer).to(6, 45)
        assert np.array_equal(grid.nearest(rows.astype(float)), rows)
        if not variant.encoding.startswith("coded"):
            assert np.all(np.abs(rows - layer.levels.reshape(6, 45)) <= grid.step)
        assert np.array_equal(encoding.unpack(encoding.pack(found), layer.shape, variant).levels, found.levels)

    def test_indecision_is_none_on_the_grid_and_most_between(self):
        variant = Variant("int4")
        weight = np.random.default_rng(1).normal(size=(2, 3, 1, 1)).astype(np.float32)
        moves = Moves(encoding_of(variant).quantise(weight, np.zeros(2, np.float32), variant), weight)
        for offset, wanted in ((0.0, 0.0), (1.0, 0.0), (-1.0, 0.0), (0.5, 1.0), (-0.5, 1.0)):
            with torch.no_grad():
                moves.offset.fill_(offset)
            assert float(moves.indecision(4.0)) == pytest.approx(wanted)


class TestLearning:
    def learn(self, small, variants, ranges=None):
        found = realise(small.network, small.weights, small.images[:32], variants)
        simulator = Simulator(small.network, small.weights)
        learned = learn_rounding(
            simulator, found.layers, found.ranges, small.images[:32], small.images[32:], memory=1 << 30
        )
        return simulator, found, learned

    @pytest.mark.parametrize("variant", ["int2", "apb:kept=0.04", "codedternary:bits=1", "xor:bits=1", "ternary@u4"])
    def test_no_block_of_held_back_images_gets_worse_and_some_get_better(self, small, monkeypatch, variant):
        monkeypatch.setattr(block_rounding, "STEPS", 60)
        chosen = Variant.parse(variant)
        variants = {n.name: chosen for n in small.network.layers} | {"depthwise": Variant("int3")}
        simulator, found, learned = self.learn(small, variants)
        gains = []
        side = Sides.of(simulator, small.images[32:])
        for block in blocks_of(simulator):
            own = {name: found.layers[name] for name in block.layers}
            old, new = (
                side.behind(block, {**learned, **layers}, found.ranges).error(block.outputs) for layers in (own, {})
            )
            gains.append(old - new)
            side.advance(block.stop, learned, found.ranges)
        assert min(gains) >= 0
        assert max(gains) > 0
        for name, layer in learned.items():
            packed = encoding_of(layer.variant).pack(layer)
            assert len(packed) == encoding_of(layer.variant).size_bytes(layer.shape, layer.variant)
            assert len(layer.kept_positions) == len(found.layers[name].kept_positions)
        if variant.startswith("xor"):
            assert all(
                np.array_equal(layer.levels, found.layers[n].levels) for n, layer in learned.items() if n != "depthwise"
            )

    def test_float32_layers_come_back_themselves(self, small, monkeypatch):
        monkeypatch.setattr(block_rounding, "STEPS", 5)
        variants = {n.name: Variant("int2") for n in small.network.layers} | {"stem": FLOAT32, "join": FLOAT32}
        _, found, learned = self.learn(small, variants)
        assert learned["stem"] is found.layers["stem"]
        assert learned["join"] is found.layers["join"]


def test_quantise_is_what_moves_begin_with(small):
    """Offsets begin on the way to the full-precision weight: nearer to it than the levels are."""
    node = small.network.by_name["join"]
    layer = quantise(small.network, node, small.weights, Variant("int3"))
    weight = small.weights["join.weight"]
    begun = layer.weight + Moves(layer, weight).change().detach().numpy()
    assert np.abs(begun - weight).sum() < 0.5 * np.abs(layer.weight - weight).sum()
