"""Rounding by blocks: which layers go together, where levels may go, and what a block gains."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from bitplan.encodings import default_menu, encoding_of
from bitplan.encodings.levels import LevelEncoding
from bitplan.network import RELU, Conv2d, Input, Linear, Network, Node
from bitplan.policies.realise import block_rounding, realise
from bitplan.policies.realise.block_rounding import Learner, Rows, Sides, gathered, learn_rounding
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
    def test_levels_step_to_neighbours_on_their_grid_and_can_be_packed(self, variant):
        random = np.random.default_rng(0)
        weight = random.normal(size=(6, 5, 3, 3)).astype(np.float32)
        encoding = encoding_of(variant)
        assert isinstance(encoding, LevelEncoding)
        layer = encoding.quantise(weight, np.zeros(6, np.float32), variant)
        slope = random.normal(size=weight.shape).astype(np.float32)
        found = Moves(layer).taken(slope, np.full_like(slope, 0.1), 7)
        assert not np.array_equal(found.levels, layer.levels)
        rows, grid = found.levels.reshape(6, 45), encoding.grid(layer).to(6, 45)
        assert np.array_equal(grid.nearest(rows.astype(float)), rows)
        if not variant.encoding.startswith("coded"):
            change = found.levels.astype(int) - layer.levels
            assert np.all(np.isin(change.reshape(6, 45), (0, 1, -1)) | (np.abs(change.reshape(6, 45)) == grid.step))
            assert np.all(change * slope <= 0)
            assert np.all((change != 0).reshape(6, -1).sum(1) <= 7)
        assert np.array_equal(encoding.unpack(encoding.pack(found), layer.shape, variant).levels, found.levels)

    def test_a_step_that_the_curvature_makes_worthless_is_not_taken(self):
        weight = np.random.default_rng(1).normal(size=(3, 4, 1, 1)).astype(np.float32)
        layer = encoding_of(Variant("int8")).quantise(weight, np.zeros(3, np.float32), Variant("int8"))
        slope = np.full_like(weight, 0.1)
        assert np.array_equal(Moves(layer).taken(slope, np.full_like(slope, 0.3), 4).levels, layer.levels)
        slope[1, 2] = 0.2
        change = Moves(layer).taken(slope, np.full_like(slope, 0.3), 4).levels - layer.levels
        assert np.flatnonzero(change).tolist() == [6]

    def test_offsets_change_the_weight_by_steps_of_the_grid(self):
        weight = np.random.default_rng(1).normal(size=(3, 4, 1, 1)).astype(np.float32)
        layer = encoding_of(Variant("int2")).quantise(weight, np.zeros(3, np.float32), Variant("int2"))
        moves = Moves(layer)
        assert not moves.change().detach().numpy().any()
        with torch.no_grad():
            moves.offset.fill_(1)
        wanted = 2 * layer.scale.reshape(-1, 1, 1, 1) * np.ones_like(weight)
        assert np.array_equal(moves.change().detach().numpy(), wanted)


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
        monkeypatch.setattr(block_rounding, "ROUNDS", 4)
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
        monkeypatch.setattr(block_rounding, "ROUNDS", 1)
        variants = {n.name: Variant("int2") for n in small.network.layers} | {"stem": FLOAT32, "join": FLOAT32}
        _, found, learned = self.learn(small, variants)
        assert learned["stem"] is found.layers["stem"]
        assert learned["join"] is found.layers["join"]

    def test_slopes_and_curvatures_are_those_of_the_error(self, small):
        """One layer without activation: the error is a parabola in every offset."""
        variants = {n.name: FLOAT32 for n in small.network.layers} | {"classifier": Variant("int3")}
        found = realise(small.network, small.weights, small.images, variants)
        simulator = Simulator(small.network, small.weights)
        block, side = blocks_of(simulator)[-1], Sides.of(simulator, small.images)
        side.advance(block.start, found.layers, found.ranges)
        rows = Rows(gathered(side.quantised), gathered(side.behind(block, found.layers, found.ranges).full))
        learner = Learner(simulator, found.ranges, {})
        error, slope = learner._slope(block, found.layers, ["classifier"], rows)
        random = np.random.default_rng(0)
        probes = [learner._curvature(block, found.layers, ["classifier"], rows, random) for _ in range(40)]
        curvature = np.mean([probe["classifier"] for probe in probes], 0)
        layer = found.layers["classifier"]
        for place in ((0, 1, 0, 0), (3, 5, 0, 0)):
            changed = layer.levels.copy()
            changed[place] += 2
            other, _ = learner._slope(
                block, {**found.layers, "classifier": replace(layer, levels=changed)}, ["classifier"], rows
            )
            exact = 2 * (other - error - slope["classifier"][place])
            assert curvature[place] == pytest.approx(exact, rel=0.4)
