"""The policies that latencies are measured in."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
import pytest

from bitplan.compute import supports_format
from bitplan.encodings import encoding_of, every_variant
from bitplan.encodings.coded import Coded
from bitplan.kernels.artifact import artifact_bytes
from bitplan.network import Add, Conv2d, Input, Linear, MaxPool, Mean, Network, Node, ScaleShift, WeightShape
from bitplan.profiles.cover import Cover, covering_policies
from bitplan.profiles.stand_in import stand_in_artifact, stand_in_input, stand_in_layer, stand_in_ranges
from bitplan.profiles.steps import StepKey, all_keys, policy_steps
from bitplan.variant import F32, Variant


def network(blocks: int = 3) -> Network:
    """Residual blocks with repeating signatures, a separate batch norm and a pool."""
    conv = Conv2d((3, 3), padding=(1, 1, 1, 1))
    nodes = [Node("image", Input(), (), (3, 8, 8)), Node("stem", conv, ("image",), (16, 8, 8))]
    last = "stem"
    for number in range(blocks):
        first, second, total = f"a{number}", f"b{number}", f"sum{number}"
        nodes += [
            Node(first, conv, (last,), (16, 8, 8)),
            Node(second, Conv2d((3, 3), padding=(1, 1, 1, 1), groups=16), (first,), (16, 8, 8)),
            Node(total, Add(), (second, last), (16, 8, 8)),
        ]
        last = total
    nodes += [
        Node("norm", ScaleShift(), (last,), (16, 8, 8)),
        Node("pool", MaxPool((2, 2), (2, 2)), ("norm",), (16, 4, 4)),
        Node("mean", Mean(), ("pool",), (16,)),
        Node("head", Linear(), ("mean",), (10,)),
    ]
    return Network(tuple(nodes), ("head",))


def low_menu(shape: WeightShape) -> tuple[Variant, ...]:
    """Activations of several widths, where the layer can read them."""
    offered = map(Variant.parse, ("int8", "float32", "binary@u2", "ternary@u1"))
    return tuple(variant for variant in offered if supports_format(shape, variant.activation))


def covered_by(net: Network, policies: Sequence[Cover]) -> set[StepKey]:
    return {key for p in policies for key in policy_steps(net, p.variants, kernels=p.kernels).values()}


def test_the_policies_cover_every_key_of_the_menu() -> None:
    net, variants = network(), every_variant()
    menu = {layer.name: variants for layer in net.layers}
    wanted = all_keys(net, menu)
    policies = covering_policies(net, menu, wanted)
    assert covered_by(net, policies) == wanted
    assert all(set(policy.variants) == set(menu) for policy in policies)
    own = [variant for variant in variants if encoding_of(variant).in_memory(variant) == variant]
    assert [policy.variants for policy in policies[: len(own)]] == [dict.fromkeys(menu, v) for v in own]
    assert len(policies) <= 4 * len(own)  # few: one policy per key would be hundreds


def test_every_kernel_is_covered_under_every_set_of_formats() -> None:
    net = network()
    menu = {layer.name: low_menu(net.weight_shape(layer)) for layer in net.layers}
    wanted = all_keys(net, menu)
    assert {key.kernel for key in wanted if key.variant == "binary@u2"} == {"bits", "lookup", "bytes"}
    assert {key.output for key in wanted} >= {"u8", "u2", "u1", "f32+u2", "u8+u1", "u8+u2"}
    policies = covering_policies(net, menu, wanted)
    assert covered_by(net, policies) == wanted
    alone = sum(key.signature == net.signature(net.by_name["stem"]) for key in wanted)
    assert len(policies) <= 1.25 * alone  # the stem's steps are executed one in each policy


def test_only_what_is_wanted_is_covered() -> None:
    net = network()
    menu = {layer.name: every_variant() for layer in net.layers}
    wanted = {key for key in all_keys(net, menu) if key.variant == "ternary" and key.output == F32}
    policies = covering_policies(net, menu, wanted)
    assert 1 <= len(policies) <= 3
    assert wanted <= covered_by(net, policies)
    assert covering_policies(net, menu, []) == []


def test_menus_that_differ_by_layer_are_respected() -> None:
    net = network()
    menu = {layer.name: (Variant("int8"),) if "a" in layer.name else every_variant() for layer in net.layers}
    policies = covering_policies(net, menu, all_keys(net, menu))
    assert all(policy.variants[name] in menu[name] for policy, name in product(policies, menu))


@pytest.mark.parametrize("variant", (*every_variant(), Variant.parse("apb@u1:kept=0.02")), ids=str)
def test_stand_in_layers_pack_like_real_ones(variant: Variant) -> None:
    net = network()
    for node in net.layers:
        shape = net.weight_shape(node)
        layer = stand_in_layer(shape, variant, np.random.default_rng(0))
        encoding = encoding_of(variant)
        data = encoding.pack(layer)
        assert len(data) == encoding.size_bytes(shape, variant)
        again = encoding.unpack(data, shape, variant)
        np.testing.assert_array_equal(again.weight, layer.weight)
        assert len(layer.kept_positions) == (
            0 if variant.activation == F32 else encoding.full_precision_weights(shape, variant)
        )
        if isinstance(encoding, Coded):  # zeros, which fit every rate; integer kernels take as long for any levels
            continue
        # He initialisation: as much power out as in, so that deep float networks stay in the normal range
        power = float(np.mean(layer.weight.astype(np.float64) ** 2)) * shape.reduction
        assert 1 < power < 4


def test_a_stand_in_artifact_has_the_size_of_a_real_one() -> None:
    net = network()
    policy = {layer.name: variant for layer, variant in zip(net.layers, every_variant(), strict=False)}
    assert len(stand_in_artifact(net, policy, batch=4)) == artifact_bytes(net, policy)


def test_ranges_differ_except_where_an_operation_keeps_that_of_its_input() -> None:
    net = network()
    ranges = stand_in_ranges(net)
    assert ranges["pool"]["u8"] == ranges["norm"]["u8"]
    assert ranges["sum0"] != ranges["b0"] != ranges["stem"]


def test_inputs_are_bytes_for_images_and_floats_otherwise() -> None:
    both = Network((Node("image", Input(), (), (3, 2, 2)), Node("vector", Input(), (), (5,))), ("image", "vector"))
    arrays = stand_in_input(both, 7)
    assert (arrays["image"].dtype.name, arrays["image"].shape) == ("uint8", (7, 3, 2, 2))
    assert (arrays["vector"].dtype.name, arrays["vector"].shape) == ("float32", (7, 5))
