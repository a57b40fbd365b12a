"""Equalisation: the same function, channels of more equal range, and nothing where factors cannot move."""

from __future__ import annotations

import numpy as np
import pytest

from bitplan.network import RELU, RELU6, Activation, Conv2d, Input, Linear, Mean, Network, Node
from bitplan.policies.realise import recover
from bitplan.policies.realise.equalise import CLEAR, equalised
from bitplan.simulate import Simulator
from bitplan.variant import FLOAT32, Variant

torch = pytest.importorskip("torch")


def network_of(activation=RELU, second=RELU, reader_twice=False):
    nodes = [
        Node("x", Input(), (), (3, 6, 6)),
        Node("a", Conv2d((3, 3), padding=(1, 1, 1, 1), activation=activation), ("x",), (8, 6, 6)),
        Node("b", Conv2d((3, 3), padding=(1, 1, 1, 1), groups=8, activation=second), ("a",), (8, 6, 6)),
        Node("c", Conv2d((1, 1), groups=2, activation=RELU), ("b", "a") if reader_twice else ("b",), (8, 6, 6)),
        Node("mean", Mean(), ("c",), (8,)),
        Node("d", Linear(), ("mean",), (5,)),
    ]
    network = Network(tuple(nodes), ("d",))
    random = np.random.default_rng(0)
    weights = {}
    for node in network.layers:
        shape = network.weight_shape(node)
        size = (shape.out_channels, shape.in_channels // shape.groups, *shape.kernel)
        size = size[:2] if isinstance(node.op, Linear) else size
        spread = np.exp(random.normal(0, 1, shape.out_channels)).reshape(-1, *[1] * (len(size) - 1))
        weights[f"{node.name}.weight"] = (spread * random.normal(size=size) / shape.reduction**0.5).astype(np.float32)
        weights[f"{node.name}.bias"] = random.normal(0, 0.1, shape.out_channels).astype(np.float32)
    return network, weights, random.normal(size=(24, 3, 6, 6)).astype(np.float32)


def changed(before, after):
    return {name for name in before if after[name] is not before[name]}


def spread_of_peaks(network, weights, images, name):
    value = Simulator(network, weights).values(images, keep=[name])[name].numpy()
    peaks = np.abs(value).max((0, 2, 3))
    return float(np.log(peaks[peaks > 0]).std())


@pytest.mark.parametrize("activation", [RELU, RELU6, Activation("clamp", 0.0, 2.0), Activation()], ids=str)
def test_the_function_stays_and_channels_come_nearer(activation):
    network, weights, images = network_of(activation, activation)
    found = equalised(network, weights, images, ["a", "b", "c", "d"])
    before, after = (Simulator(network, w).outputs(images)["d"] for w in (weights, found))
    assert (before - after).abs().max() <= 1e-5 * before.abs().max()
    for name in ("a", "b", "c"):
        assert spread_of_peaks(network, found, images, name) < spread_of_peaks(network, weights, images, name)
    assert {f"{n}.weight" for n in "abcd"} <= changed(weights, found)


def test_values_stay_clear_of_an_upper_bound():
    network, weights, images = network_of(RELU6, RELU6)
    found = equalised(network, weights, images, ["a", "b", "c", "d"])
    for name in ("a", "b"):
        before, after = (
            Simulator(network, w).values(images, keep=[name])[name].numpy().max((0, 2, 3)) for w in (weights, found)
        )
        near = before >= CLEAR * 6
        assert np.allclose(after[near], before[near], rtol=1e-5)
        assert np.all(after[~near] <= CLEAR * 6 * (1 + 1e-5))


def test_factors_move_only_between_named_layers_with_one_reader():
    network, weights, images = network_of()
    assert changed(weights, equalised(network, weights, images, ["a", "b"])) == {"a.weight", "a.bias", "b.weight"}
    assert changed(weights, equalised(network, weights, images, ["a", "c"])) == set()
    network, weights, images = network_of(reader_twice=True)  # "a" is a residual too
    found = changed(weights, equalised(network, weights, images, ["a", "b", "c"]))
    assert found == {"b.weight", "b.bias", "c.weight"}
    network, weights, images = network_of(Activation("silu"), Activation("clamp", -1.0, 1.0))
    assert changed(weights, equalised(network, weights, images, ["a", "b", "c"])) == set()


def test_a_dead_channel_keeps_its_weights():
    network, weights, images = network_of()
    weights["a.weight"][2], weights["a.bias"][2] = 0, -1
    found = equalised(network, weights, images, ["a", "b", "c", "d"])
    assert np.array_equal(found["a.weight"][2], weights["a.weight"][2])
    assert all(np.all(np.isfinite(array)) for array in found.values())


def test_recovery_uses_it_where_channels_differ_and_leaves_float32_alone():
    network, weights, images = network_of()
    weights["a.weight"] *= np.geomspace(0.02, 1, 8, dtype=np.float32)[:, None, None, None]
    weights["b.weight"] *= np.geomspace(50, 1, 8, dtype=np.float32)[:, None, None, None]
    variants = {
        node.name: Variant("int8", "u4" if node.op == network.by_name["d"].op else "u8") for node in network.layers
    }
    gains = {gain.step: gain for gain in recover(network, weights, images, variants, ["equalise"]).gains}
    assert gains["equalise"].kept
    assert gains["equalise"].held_back_loss < 0.5 * gains["rounded"].held_back_loss
    plain = recover(network, weights, images, dict.fromkeys(variants, FLOAT32), ["equalise"]).realisation
    ours = Simulator(network, weights).outputs(images, plain.layers, plain.ranges)["d"]
    assert torch.equal(ours, Simulator(network, weights).outputs(images)["d"])
