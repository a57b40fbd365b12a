"""What the simulator computes for float32 and encoded layers, and that it can stop and go on anywhere."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from bitplan.encodings import ENCODINGS, encoding_of
from bitplan.errors import DataError, UsageError
from bitplan.formats import Range, top_code
from bitplan.network import (
    RELU,
    Activate,
    Activation,
    Add,
    Conv2d,
    Input,
    Linear,
    MaxPool,
    Mean,
    Network,
    Node,
    Preprocessing,
    ScaleShift,
)
from bitplan.simulate import Simulator, fake_quantise
from bitplan.variant import U1, U2, U4, U8, Variant

RNG = np.random.default_rng(0)
NETWORK = Network(
    (
        Node("x", Input(), (), (3, 8, 8)),
        Node("stem", Conv2d((3, 3), padding=(1, 1, 1, 1), activation=RELU), ("x",), (4, 8, 8)),
        Node("pool", MaxPool((2, 2), (2, 2)), ("stem",), (4, 4, 4)),
        Node("depthwise", Conv2d((3, 3), padding=(0, 2, 1, 1), groups=4), ("pool",), (4, 4, 4)),
        Node("residual", Conv2d((1, 1), activation=RELU), ("depthwise", "pool"), (4, 4, 4)),
        Node("sum", Add(), ("residual", "pool"), (4, 4, 4)),
        Node("norm", ScaleShift(), ("sum",), (4, 4, 4)),
        Node("mean", Mean(), ("norm",), (4,)),
        Node("fc", Linear(), ("mean",), (5,)),
    ),
    ("fc",),
    Preprocessing((120.0, 110.0, 100.0), (60.0, 61.0, 62.0)),
)


def weights_of(network):
    found = {}
    for layer in network.layers:
        shape = network.weight_shape(layer)
        size = (shape.out_channels, shape.in_channels // shape.groups)
        size += shape.kernel if isinstance(layer.op, Conv2d) else ()
        found[f"{layer.name}.weight"] = RNG.normal(size=size).astype(np.float32)
        found[f"{layer.name}.bias"] = RNG.normal(size=shape.out_channels).astype(np.float32)
    return found


WEIGHTS = {
    **weights_of(NETWORK),
    "norm.scale": np.array([1.5, -0.5, 2, 1], np.float32),
    "norm.shift": np.array([0, 1, -1, 2], np.float32),
}
RAW = RNG.integers(0, 256, (6, 3, 8, 8)).astype(np.uint8)
BYTES = {
    "x": Range(0.02, 128),
    "stem": Range(0.06, 0),
    "depthwise": Range(0.2, 120),
    "residual": Range(0.3, 0),
    "sum": Range(0.3, 0),
    "norm": Range(0.4, 100),
    "mean": Range(0.1, 90),
}
RANGES = {
    name: {
        U8: held,
        U4: Range(17 * held.scale, held.zero_point // 17),
        U2: Range(85 * held.scale, held.zero_point // 85),
        U1: Range(85 * held.scale, 0.5 if held.zero_point else 0),
    }
    for name, held in BYTES.items()
}
RANGES["pool"] = {U4: Range(0.9, 0), U2: Range(1.5, 0), U1: Range(4.0, 0)}  # in u8 it has that of the stem


@pytest.fixture(scope="module")
def simulator():
    return Simulator(NETWORK, WEIGHTS)


def encoded(variant="int8", names=None):
    layers = {}
    for layer in NETWORK.layers:
        if names is None or layer.name in names:
            weight, bias = WEIGHTS[f"{layer.name}.weight"], WEIGHTS[f"{layer.name}.bias"]
            weight = weight.reshape(*weight.shape[:2], *(weight.shape[2:] or (1, 1)))
            variant_ = Variant.parse(variant)
            layers[layer.name] = encoding_of(variant_).quantise(weight, bias, variant_, getattr(layer.op, "groups", 1))
    return layers


def test_preprocessing_is_x_minus_mean_by_std(simulator):
    mean = np.array(NETWORK.preprocessing.mean, np.float32).reshape(3, 1, 1)
    std = np.array(NETWORK.preprocessing.std, np.float32).reshape(3, 1, 1)
    for raw in (RAW, RAW.astype(np.float32), torch.from_numpy(RAW)):
        found = simulator.preprocess(raw)
        assert found.dtype == torch.float32
        np.testing.assert_array_equal(found.numpy(), (np.asarray(RAW, np.float32) - mean) / std)


def test_read_only_and_reversed_arrays_are_fine(simulator):
    frozen = RAW.copy()
    frozen.setflags(write=False)
    expected = simulator.outputs(RAW)["fc"]
    assert torch.equal(simulator.outputs(frozen)["fc"], expected)
    assert torch.equal(simulator.outputs(RAW[::-1].copy()[::-1])["fc"], expected)


def test_no_preprocessing_passes_the_array_on():
    network = Network((Node("x", Input(), (), (3,)),), ("x",))
    assert torch.equal(Simulator(network, {}).outputs(np.ones((2, 3), np.uint8))["x"], torch.ones(2, 3))


def tensor(name):
    return torch.from_numpy(WEIGHTS[name])


def by_hand(values, weights, quantised=frozenset()):
    """Each node's value from the values of its inputs, written down without the library; `quantised` names the values
    that are seen in 8 bits. One node at a time, since a rounding may fall either way at the last bit before it."""
    ranges = {**BYTES, "pool": BYTES["stem"]}
    seen = {n: fake_quantise(v, ranges[n], U8) if n in quantised else v for n, v in values.items()}
    array = {name: torch.from_numpy(np.asarray(value)) for name, value in weights.items()}
    return {
        "stem": F.relu(F.conv2d(seen["x"], array["stem.weight"], array["stem.bias"], padding=1)),
        "pool": F.max_pool2d(seen["stem"], 2),
        "depthwise": F.conv2d(
            F.pad(seen["pool"], (1, 1, 0, 2)), array["depthwise.weight"], array["depthwise.bias"], groups=4
        ),
        "residual": F.relu(
            F.conv2d(seen["depthwise"], array["residual.weight"], array["residual.bias"]) + seen["pool"]
        ),
        "sum": seen["residual"] + seen["pool"],
        "norm": seen["sum"] * tensor("norm.scale").view(4, 1, 1) + tensor("norm.shift").view(4, 1, 1),
        "mean": seen["norm"].mean((2, 3)),
        "fc": F.linear(seen["mean"], array["fc.weight"].reshape(5, 4), array["fc.bias"]),
    }


def assert_values(found, expected):
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-5, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


def test_float32_is_the_network_itself(simulator):
    found = simulator.values(RAW)
    assert_values(found, by_hand(found, WEIGHTS))
    assert torch.equal(simulator.outputs(RAW)["fc"], found["fc"])


def test_encoded_layers_read_quantised_values(simulator):
    layers = encoded("int4")
    weights = {f"{n}.{kind}": getattr(layer, kind) for n, layer in layers.items() for kind in ("weight", "bias")}
    found = simulator.values(RAW, layers, RANGES)
    assert_values(found, by_hand(found, weights, {*RANGES, "pool"}))
    exact = by_hand(found, weights)
    torch.testing.assert_close(found["depthwise"], exact["depthwise"])
    others = exact.keys() - {"depthwise"}  # what the pool moved lies on the grid already
    assert not any(torch.allclose(found[name], exact[name], atol=1e-4) for name in others)


def test_a_value_read_in_both_formats_stays_exact_for_its_float_readers(simulator):
    """One encoded layer at the end: the operations in front of it read u8 up to the float32 convolutions."""
    layers = encoded("int8", ["fc"])
    weights = {**WEIGHTS, "fc.weight": layers["fc"].weight, "fc.bias": layers["fc"].bias}
    found, exact = simulator.values(RAW, layers, RANGES), simulator.values(RAW)
    assert all(torch.equal(found[name], exact[name]) for name in ("stem", "pool", "depthwise", "residual"))
    expected = by_hand(found, weights, {"pool", "residual", "sum", "norm", "mean"})
    assert_values(found, {name: expected[name] for name in ("sum", "norm", "mean", "fc")})


def test_values_are_what_nodes_make_before_quantisation(simulator):
    found = simulator.values(RAW, encoded(), RANGES)
    assert list(found) == [node.name for node in NETWORK]
    for node in NETWORK:
        assert found[node.name].shape == (6, *node.shape)
        assert found[node.name].dtype == torch.float32
    off_grid = found["stem"] / BYTES["stem"].scale
    assert not torch.allclose(off_grid, off_grid.round(), atol=1e-3)


def test_keep_selects_values_in_the_order_asked_for(simulator):
    found = simulator.values(RAW, keep=["norm", "x", "fc"])
    assert list(found) == ["norm", "x", "fc"]
    everything = simulator.values(RAW)
    assert all(torch.equal(found[name], everything[name]) for name in found)


@pytest.mark.parametrize("variant", [str(e.variants[0]) for e in ENCODINGS] + ["int4@u4", "ternary@u2", "binary@u1"])
@pytest.mark.parametrize("start", range(len(NETWORK.nodes) + 1))
def test_resuming_anywhere_gives_the_same_outputs(simulator, variant, start):
    layers = encoded(variant)
    values = simulator.values(RAW, layers, RANGES)
    given = {name: values[name] for name in simulator.needed(start)}
    assert torch.equal(simulator.resume(given, start, layers, RANGES)["fc"], values["fc"])


def test_needed_values_are_those_read_later(simulator):
    assert simulator.needed(0) == ("x",)
    assert simulator.needed(4) == ("pool", "depthwise")
    assert simulator.needed(6) == ("sum",)
    assert simulator.needed(9) == ("fc",)


def test_resuming_reads_what_was_given_and_nothing_else(simulator):
    values = simulator.values(RAW)
    changed = simulator.resume({"mean": values["mean"] + 1}, 8)["fc"]
    torch.testing.assert_close(changed, values["fc"] + tensor("fc.weight").sum(1), rtol=1e-5, atol=1e-5)


def test_values_given_to_resume_are_not_changed(simulator):
    values = simulator.values(RAW)
    before = {name: value.clone() for name, value in values.items()}
    for start in range(len(NETWORK.nodes)):
        simulator.resume(values, start, encoded(), RANGES)
    assert all(torch.equal(before[name], values[name]) for name in before)


def test_one_node_with_and_without_its_residual(simulator):
    values = simulator.values(RAW)
    node = NETWORK.by_name["residual"]
    whole = simulator.node(node, [values["depthwise"], values["pool"]])
    assert torch.equal(whole, values["residual"])
    alone = simulator.node(node, [values["depthwise"]])
    expected = F.relu(F.conv2d(values["depthwise"], tensor("residual.weight"), tensor("residual.bias")))
    torch.testing.assert_close(alone, expected)
    layer, held = encoded("ternary")["residual"], BYTES["depthwise"]
    read = fake_quantise(values["depthwise"], held, U8)
    found = simulator.node(node, [read], layer, held)
    expected = F.relu(F.conv2d(read, torch.from_numpy(layer.weight), torch.from_numpy(np.asarray(layer.bias))))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(UsageError, match="'residual' as ternary reads codes; give the range of its input"):
        simulator.node(node, [read], layer)


@pytest.mark.parametrize("variant", ["int8", "int8@u4", "ternary@u2", "binary@u1", "apb:kept=0.1", "apb@u1:kept=0.1"])
@pytest.mark.parametrize("zero_point", ["bottom", "middle", "half"])
def test_a_layer_on_codes_is_the_integer_formula(variant, zero_point):
    """activation(m c + b + residual): c in integers over all codes, padding among them; m and b rounded to float32."""
    chosen = Variant.parse(variant)
    form, top = chosen.activation, top_code(chosen.activation)
    zero = {"bottom": 0, "middle": (top + 1) // 2, "half": 0.5 if form == U1 else top}[zero_point]
    op = Conv2d((3, 3), (2, 1), (1, 2, 0, 1), activation=RELU)
    network = Network(
        (Node("x", Input(), (), (5, 7, 6)), Node("y", op, ("x",), (4, 4, 5)), Node("z", op, ("x", "y"), (4, 4, 5))),
        ("y",),
    )
    weight, bias = RNG.normal(size=(4, 5, 3, 3)).astype(np.float32), RNG.normal(size=4).astype(np.float32)
    layer = encoding_of(chosen).quantise(weight, bias, chosen)
    held = Range(0.3, zero)
    codes = RNG.integers(0, top + 1, (3, 5, 7, 6))
    x = torch.from_numpy((np.float32(0.3) * (codes - np.float32(zero))).astype(np.float32))
    residual = torch.from_numpy(RNG.normal(size=(3, 4, 4, 5)).astype(np.float32))
    weights = {**dict.fromkeys(("y.weight", "z.weight"), weight), **dict.fromkeys(("y.bias", "z.bias"), bias)}
    found = Simulator(network, weights).node(network.by_name["z"], [x, residual], layer, held)
    padded = np.pad(codes, ((0, 0), (0, 0), (1, 2), (0, 1)), constant_values=int(zero))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))[:, :, ::2, ::1]
    sums = np.einsum("ncyxij,ocij->noyx", windows, layer.levels.astype(np.int64))
    multiplier = layer.scale * np.float32(0.3)
    total = layer.levels.reshape(4, -1).sum(1, dtype=np.float64)
    shift = (layer.bias.astype(np.float64) - zero * total * multiplier.astype(np.float64)).astype(np.float32)
    expected = sums.astype(np.float32) * multiplier[:, None, None] + shift[:, None, None] + residual.numpy()
    np.testing.assert_array_equal(found.numpy(), np.maximum(expected, 0))


def test_each_reader_sees_a_value_in_its_own_format(simulator):
    """The stem's value is read in u2 through the pool by `depthwise`, and in u8 as the residual of `residual`."""
    layers = {**encoded("ternary@u2", ["depthwise"]), **encoded("binary@u1", ["residual"]), **encoded("int8", ["fc"])}
    found = simulator.values(RAW, layers, RANGES)
    assert torch.equal(found["stem"], simulator.values(RAW)["stem"])
    pool, node = found["pool"], NETWORK.by_name
    own = RANGES["pool"][U2]
    expected = simulator.node(node["depthwise"], [fake_quantise(pool, own, U2)], layers["depthwise"], own)
    assert torch.equal(found["depthwise"], expected)
    held = RANGES["depthwise"][U1]
    inputs = [fake_quantise(found["depthwise"], held, U1), fake_quantise(pool, BYTES["stem"], U8)]
    assert torch.equal(found["residual"], simulator.node(node["residual"], inputs, layers["residual"], held))


def test_moved_codes_keep_the_range_of_where_they_come_from(simulator):
    """A pool that reads u8 has no range of its own, whatever is written down for it."""
    layers = encoded()
    expected = simulator.outputs(RAW, layers, RANGES)["fc"]
    other = {**RANGES, "pool": {U8: Range(7.0, 3)}}
    assert torch.equal(simulator.outputs(RAW, layers, other)["fc"], expected)


def test_a_pool_that_reads_floats_may_have_a_range_of_its_own():
    network = Network(
        (
            Node("x", Input(), (), (2, 4, 4)),
            Node("pool", MaxPool((2, 2), (2, 2)), ("x",), (2, 2, 2)),
            Node("conv", Conv2d((1, 1)), ("pool",), (2, 2, 2)),
        ),
        ("conv", "pool"),
    )
    weights = {"conv.weight": np.ones((2, 2, 1, 1), np.float32), "conv.bias": np.zeros(2, np.float32)}
    variant = Variant("int8")
    layers = {"conv": encoding_of(variant).quantise(weights["conv.weight"], weights["conv.bias"], variant)}
    x = torch.rand(2, 2, 4, 4)
    own = Simulator(network, weights).outputs(x, layers, {"x": {U8: Range(0.01, 0)}, "pool": {U8: Range(0.1, 0)}})
    borrowed = Simulator(network, weights).outputs(x, layers, {"x": {U8: Range(0.1, 0)}})
    assert torch.equal(own["conv"], borrowed["conv"])
    assert torch.equal(own["pool"], F.max_pool2d(x, 2))


def test_every_output_comes_back_also_an_input_and_an_inner_value():
    network = Network(
        (
            Node("a", Input(), (), (3,)),
            Node("b", Input(), (), (3,)),
            Node("sum", Add(), ("a", "b"), (3,)),
            Node("gate", Activate(Activation("sigmoid")), ("sum",), (3,)),
        ),
        ("gate", "b", "sum"),
    )
    a, b = torch.randn(2, 3), torch.randn(2, 3)
    found = Simulator(network, {}).outputs({"a": a, "b": b})
    assert list(found) == ["gate", "b", "sum"]
    assert torch.equal(found["b"], b)
    assert torch.equal(found["sum"], a + b)
    torch.testing.assert_close(found["gate"], torch.sigmoid(a + b))


def test_read_only_weights_are_fine():
    weights = {name: array.copy() for name, array in WEIGHTS.items()}
    for array in weights.values():
        array.setflags(write=False)
    assert torch.equal(Simulator(NETWORK, weights).outputs(RAW)["fc"], Simulator(NETWORK, WEIGHTS).outputs(RAW)["fc"])


ERRORS = {
    "range": (lambda s: s.outputs(RAW, encoded(names=["residual"]), {}), UsageError, "'depthwise' is read as u8 but"),
    "format": (
        lambda s: s.outputs(RAW, encoded("binary@u2", ["residual"]), {"depthwise": {U8: BYTES["depthwise"]}}),
        UsageError,
        "'depthwise' is read as u2 but has no range for that; calibrate it",
    ),
    "layer": (lambda s: s.outputs(RAW, {"stam": encoded()["stem"]}, RANGES), UsageError, "no node 'stam'"),
    "keep": (lambda s: s.values(RAW, keep=["stam"]), UsageError, "no node 'stam'"),
    "shape": (
        lambda s: s.outputs(RAW[:, :, :7]),
        DataError,
        "input 'x' has shape (6, 3, 7, 8); the network reads [N, 3",
    ),
    "batch": (lambda s: s.outputs(RAW[0]), DataError, "input 'x' has shape (3, 8, 8)"),
    "channels": (lambda s: s.preprocess(RAW[:, :2]), DataError, "preprocessing of 3 channels"),
    "input": (lambda s: s.outputs({"y": RAW}), DataError, "input 'x' is missing"),
    "given": (lambda s: s.resume({}, 8), UsageError, "node 'fc' needs the value 'mean'"),
    "output given": (lambda s: s.resume({}, 9), UsageError, "value 'fc' is made before node 9"),
    "weights": (lambda s: Simulator(NETWORK, {}), DataError, "the weights lack 'stem.weight'"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors(simulator, case):
    call, error, message = ERRORS[case]
    with pytest.raises(error, match=re.escape(message)):
        call(simulator)


def test_several_inputs_need_a_mapping():
    network = Network((Node("a", Input(), (), (3,)), Node("b", Input(), (), (3,))), ("a", "b"))
    with pytest.raises(DataError, match=r"inputs \['a', 'b'\]; give a mapping"):
        Simulator(network, {}).outputs(np.ones((1, 3), np.float32))
