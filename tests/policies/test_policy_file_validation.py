"""A policy against a network: each layer once, each variant possible, bytes counted anew."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bitplan.encodings import BY_NAME
from bitplan.errors import UsageError
from bitplan.kernels.artifact import layer_bytes
from bitplan.network import Add, Conv2d, Input, Linear, Mean, Network, Node
from bitplan.policies.policy import LayerPolicy, Policy
from bitplan.policies.policy_file import validate_against
from bitplan.policies.variants import stored_bytes
from bitplan.variant import Variant

INT8, INT4 = Variant("int8"), Variant("int4")


def network() -> Network:
    conv = Conv2d((3, 3), padding=(1, 1, 1, 1))
    return Network(
        (
            Node("x", Input(), (), (3, 8, 8)),
            Node("stem.conv", conv, ("x",), (16, 8, 8)),
            Node("block.conv", conv, ("stem.conv",), (16, 8, 8)),
            Node("sum", Add(), ("stem.conv", "block.conv"), (16, 8, 8)),
            Node("pool", Mean(), ("sum",), (16,)),
            Node("fc", Linear(), ("pool",), (10,)),
        ),
        ("fc",),
    )


def size(name: str, variant: Variant) -> int:
    net = network()
    return stored_bytes(net.weight_shape(net.by_name[name]), variant)


def uniform(variant: Variant = INT8) -> Policy:
    names = [layer.name for layer in network().layers]
    return Policy(tuple(LayerPolicy(name, variant, size(name, variant), 1.0, 0.5) for name in names))


def test_a_fitting_policy_comes_back_in_the_networks_order() -> None:
    policy = uniform()
    assert validate_against(replace(policy, layers=policy.layers[::-1]), network()) == policy


@pytest.mark.parametrize("text", ["int8", "ternary@u4", "binary@u2", "apb4@u1:kept=0.1"])
def test_the_bytes_that_the_planner_counts_are_those_expected(text: str) -> None:
    variant, net = Variant.parse(text), network()
    layers = tuple(LayerPolicy(node.name, variant, layer_bytes(net, node, variant), 1.0, 0.5) for node in net.layers)
    assert validate_against(Policy(layers), net) == Policy(layers)


def test_the_expectations_of_an_edited_layer_are_dropped() -> None:
    policy = uniform()
    changed = replace(policy.layers[1], variant=INT4)
    found = validate_against(replace(policy, layers=(policy.layers[0], changed, policy.layers[2])), network())
    assert found.layers[1] == LayerPolicy("block.conv", INT4, size("block.conv", INT4))
    assert found.layers[0] == policy.layers[0] and found.layers[2] == policy.layers[2]


def with_layer(index: int, **changes: object) -> Policy:
    layers = list(uniform().layers)
    layers[index] = replace(layers[index], **changes)  # type: ignore[arg-type]
    return Policy(tuple(layers))


@pytest.mark.parametrize(
    "policy, rule",
    [
        (with_layer(1, name="block.cnv"), r"'block.cnv' is not a layer of the network; did you mean 'block.conv'\?"),
        (with_layer(1, name="zzz"), r"'zzz' is not a layer of the network; its layers are block.conv"),
        (with_layer(1, name="sum"), r"'sum' is an operation \(Add\) without weights; remove it"),
        (with_layer(1, name="fc"), r"has layer 'fc' twice"),
        (Policy(uniform().layers[:1]), r"nothing about 2 of the network's 3 layers \('block.conv', 'fc'\)"),
        (Policy(()), r"nothing about 3 of the network's 3"),
        (with_layer(2, variant=Variant("int9")), r"layer 'fc': unknown encoding 'int9'; did you mean"),
        (with_layer(2, variant=Variant("apb", "u8", (("kept", 0.7),))), r"layer 'fc': parameter kept"),
        (with_layer(2, variant=Variant("int8", "f32")), r"layer 'fc': encoding int8 runs with activations in u8, u4"),
        (with_layer(2, kernel="lookup"), r"layer 'fc': int8 runs on the kernel bytes, not 'lookup'; leave the kernel"),
    ],
)
def test_a_policy_that_does_not_fit_is_refused(policy: Policy, rule: str) -> None:
    with pytest.raises(UsageError, match=rule):
        validate_against(policy, network())


def test_an_encoding_that_does_not_support_the_layer_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(BY_NAME["int4"]), "supports", lambda self, shape: shape.kernel != (1, 1))
    rule = r"layer 'fc' cannot be int4: its shape WeightShape\(out_channels=10.* cannot be stored as int4; choose"
    with pytest.raises(UsageError, match=rule):
        validate_against(uniform(INT4), network())


def test_below_8_bits_layers_without_groups_alone_can_read() -> None:
    nodes = list(network().nodes)
    nodes[2] = replace(nodes[2], op=Conv2d((3, 3), padding=(1, 1, 1, 1), groups=4))
    grouped = Network(tuple(nodes), ("fc",))
    validate_against(uniform(Variant("binary")), grouped)
    policy = with_layer(1, variant=Variant("binary", "u2"), kernel="")
    validate_against(policy, network())
    with pytest.raises(UsageError, match=r"layer 'block.conv' cannot be binary@u2: it has 4 groups, .* choose u8"):
        validate_against(policy, grouped)


def test_a_variant_off_the_menu_is_refused() -> None:
    menu = {layer.name: (INT8, INT4) for layer in network().layers}
    assert validate_against(uniform(INT4), network(), menu) == uniform(INT4)
    with pytest.raises(UsageError, match=r"layer 'stem.conv': binary is not on its menu; it has int8, int4"):
        validate_against(uniform(Variant("binary")), network(), menu)
