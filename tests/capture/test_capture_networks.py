"""Whole networks: ours, real ones with trained weights, torchvision's with random weights."""

from __future__ import annotations

import importlib.util
import os
import warnings
from pathlib import Path

import pytest

from bitplan.example.network import ExampleNetwork
from bitplan.network import AveragePool, Concat, Conv2d, Linear, MaxPool, Mean, Mul, Permute, ScaleShift

torchvision_models = pytest.importorskip("torchvision.models")


def count(network, op):
    return sum(isinstance(node.op, op) for node in network)


def test_the_example_network(captured_equally, randomise):
    network = captured_equally(randomise(ExampleNetwork()), (1, 28, 28))
    assert len(network.nodes) == 1 + 1 + 12 + 2 + 1 + 1
    assert {layer.name for layer in network.layers} >= {"conv", "blocks.2.shortcut.0", "blocks.5.conv2", "classifier"}


@pytest.fixture(scope="module")
def refnets():
    folder = os.environ.get("BITPLAN_TEST_DATA")
    if not folder:
        pytest.skip("BITPLAN_TEST_DATA is not set: no real networks")
    spec = importlib.util.spec_from_file_location("refnets", Path(folder) / "refnets.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def build(name):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # the loader leaves files for the collector to close
            return module.build(folder, name)[0]

    return build


# Nodes after simplification: input, convolutions, scale shifts, pools, shortcuts' slices and pads, reshape, linear.
@pytest.mark.parametrize(
    ("name", "size", "nodes", "layers"),
    [
        ("resnet20", 32, 1 + 19 + 2 * 2 + 1 + 1, 20),
        ("vgg6", 32, 1 + 6 + 6 + 2 + 1 + 3, 9),
        ("efficientnet_lite0", 96, 1 + 49 + 1 + 1, 50),
    ],
)
def test_real_networks(refnets, captured_equally, name, size, nodes, layers):
    network = captured_equally(refnets(name), (3, size, size))
    assert len(network.nodes) == nodes
    assert len(network.layers) == layers


@pytest.mark.parametrize(
    ("name", "layers", "others"),
    [
        ("resnet18", 21, {MaxPool: 1, Mean: 1}),
        ("mobilenet_v2", 53, {Mean: 1}),
        ("mobilenet_v3_small", 54, {Mean: 10, Mul: 9}),
        ("squeezenet1_1", 26, {MaxPool: 3, Concat: 8, Mean: 1}),
        ("shufflenet_v2_x0_5", 57, {Permute: 16, Concat: 16}),
    ],
)
def test_torchvision_networks(captured_equally, name, layers, others):
    network = captured_equally(getattr(torchvision_models, name)(weights=None), (3, 64, 64))
    assert len(network.layers) == count(network, Conv2d) + count(network, Linear) == layers
    assert {op: count(network, op) for op in others} == others


def test_a_densely_connected_network(captured_equally, randomise):
    module = torchvision_models.DenseNet(growth_rate=4, block_config=(2, 2), num_init_features=6, bn_size=2)
    network = captured_equally(randomise(module), (3, 64, 64))
    assert {op: count(network, op) for op in (Concat, ScaleShift, AveragePool)} == {
        Concat: 4,
        ScaleShift: 6,
        AveragePool: 1,
    }
