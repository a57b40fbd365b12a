"""The keys of executor steps: which steps a policy executes, and which any policy of a menu can execute."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice, product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitplan.compute import KERNELS, kernels_for
from bitplan.errors import UsageError
from bitplan.formats import derive_formats
from bitplan.network import Add, Concat, Conv2d, Input, Linear, MaxPool, Mean, Network, Node, Slice, Softmax
from bitplan.profiles.format_choice import satisfied
from bitplan.profiles.steps import StepKey, StepKeys, all_keys, policy_steps, step_ways
from bitplan.variant import F32, FLOAT32, U1, U2, U8, Variant

INT8, BINARY, LOW, LOWEST = Variant("int8"), Variant("binary"), Variant("binary", U2), Variant("ternary", U1)


def residual_network() -> Network:
    """image -> a -> pool -> b -> c(+pool) -> mean -> head; `pool` is read by a layer twice removed."""
    conv = Conv2d((3, 3), padding=(1, 1, 1, 1))
    return Network(
        (
            Node("image", Input(), (), (3, 8, 8)),
            Node("a", conv, ("image",), (16, 8, 8)),
            Node("pool", MaxPool((2, 2), (2, 2)), ("a",), (16, 4, 4)),
            Node("b", conv, ("pool",), (16, 4, 4)),
            Node("c", conv, ("b", "pool"), (16, 4, 4)),
            Node("mean", Mean(), ("c",), (16,)),
            Node("head", Linear(), ("mean",), (10,)),
        ),
        ("head",),
    )


def test_a_layers_step_is_keyed_by_signature_variant_kernel_formats_threads_and_batch() -> None:
    network = residual_network()
    node = network.by_name["b"]
    keys = StepKeys(network, threads=2, batch=4).layer(
        node, Variant("apb", U1, (("kept", 0.01),)), frozenset([U1, F32])
    )
    assert list(keys) == ["bits", "lookup", "bytes"]
    key = keys["lookup"]
    assert key.signature == network.signature(node)
    assert (key.variant, key.kernel, key.output) == ("apb@u1:kept=0.01", "lookup", "f32+u1")
    assert (key.threads, key.batch) == (2, 4)
    assert [key.kernel for key in StepKeys(network).layer(node, INT8, frozenset([U8])).values()] == ["bytes"]


def test_a_node_without_weights_writes_one_format_and_converts_the_others() -> None:
    network = residual_network()
    keys, pool = StepKeys(network), network.by_name["pool"]
    narrow = keys.operation(pool, frozenset([U8]))
    assert [(key.variant, key.kernel, key.output) for key in narrow.values()] == [("none/u8", "", "u8")]
    wide = keys.operation(pool, frozenset([F32, U8, U2]))
    assert list(wide) == ["pool", "pool:u8", "pool:u2"]
    assert (wide["pool"].variant, wide["pool"].output) == ("none/f32", "f32")
    assert wide["pool:u2"] == keys.conversion(pool, "u2") != wide["pool:u8"]
    assert wide["pool:u2"].signature == "convert o16x4x4"
    image = keys.operation(network.by_name["image"], frozenset([U8]))["image"]
    assert (image.variant, image.output) == ("none/f32", "u8")  # what is preprocessed is no code yet


def test_the_steps_of_a_policy() -> None:
    network = residual_network()
    variants = {"a": INT8, "b": FLOAT32, "c": INT8, "head": LOW}
    steps = policy_steps(network, variants, kernels={"head": "lookup"})
    assert list(steps) == ["image", "a", "pool", "pool:u8", "b", "c", "mean", "mean:u2", "head"]
    assert steps["image"].output == U8 and steps["image"].variant == "none/f32"
    assert steps["a"].output == F32  # pool reads f32 because its value is not kept in u8 alone
    assert steps["b"].output == U8 and steps["c"].output == F32 and steps["mean"].variant == "none/f32"
    assert steps["head"].output == F32 and steps["head"].kernel == "lookup"
    assert policy_steps(network, variants)["head"].kernel == "bits"
    with pytest.raises(UsageError, match="'a' as int8 cannot run on the kernel 'lookup'; name one of bytes"):
        policy_steps(network, variants, kernels={"a": "lookup"})


def test_a_layer_writes_all_formats_that_its_readers_want_in_one_step() -> None:
    network = residual_network()
    reading = Network((*network.nodes[:2], Node("b", Conv2d((1, 1)), ("a", "a"), (16, 8, 8))), ("b",))
    steps = policy_steps(reading, {"a": INT8, "b": LOW})
    assert list(steps) == ["image", "a", "b"]
    assert steps["a"].output == "u8+u2"  # the residual is read in u8


def union_over_all_policies(network: Network, menu: dict[str, tuple[Variant, ...]]) -> set[object]:
    found: set[object] = set()
    for chosen in product(*menu.values()):
        variants = dict(zip(menu, chosen, strict=True))
        for kernel in KERNELS:
            kernels = {name: kernel for name, variant in variants.items() if kernel in kernels_for(variant)}
            found.update(policy_steps(network, variants, kernels=kernels).values())
    return found


@pytest.mark.parametrize("head", [(INT8, FLOAT32), (INT8,), (FLOAT32,), (LOW, INT8)])
def test_all_keys_are_exactly_those_of_all_policies(head: tuple[Variant, ...]) -> None:
    network = residual_network()
    menu = {"a": (INT8, BINARY), "b": (INT8, FLOAT32, LOW), "c": (INT8, FLOAT32, LOWEST), "head": head}
    assert all_keys(network, menu) == union_over_all_policies(network, menu)


def test_menus_of_floats_and_bytes_have_few_keys() -> None:
    """At most three sets of formats for each layer's value, two ways to run an operation, and one conversion."""
    network = residual_network()
    menu = {layer.name: (INT8, FLOAT32) for layer in network.layers}
    assert len(all_keys(network, menu)) <= 3 * 2 * len(network.layers) + 3 * (len(network.nodes) - len(network.layers))


@st.composite
def networks(draw: st.DrawFn) -> Network:
    """Small random graphs on a (4, 4, 4) image of layers and of operations without weights."""
    nodes = [Node("n0", Input(), (), (4, 4, 4))]
    for number in range(1, draw(st.integers(2, 7))):
        earlier = st.sampled_from([node.name for node in nodes])
        one, other = draw(earlier), draw(earlier)
        operation = draw(st.sampled_from(["conv", "residual", "add", "pool", "softmax", "slice"]))
        op, inputs = {
            "conv": (Conv2d((1, 1)), (one,)),
            "residual": (Conv2d((1, 1)), (one, other)),
            "add": (Add(), (one, other)),
            "pool": (MaxPool((1, 1), (1, 1)), (one,)),
            "softmax": (Softmax(), (one,)),
            "slice": (Slice(((0, 4, 1),) * 3), (one,)),
        }[operation]
        nodes.append(Node(f"n{number}", op, inputs, (4, 4, 4)))  # type: ignore[arg-type]
    ends = draw(st.sets(st.sampled_from([node.name for node in nodes]), min_size=1, max_size=2))
    return Network(tuple(nodes), tuple(sorted(ends)))


@settings(max_examples=150, deadline=None)
@given(networks(), st.data())
def test_all_keys_are_exact_on_random_graphs_and_every_way_leads_to_its_key(
    network: Network, data: st.DataObject
) -> None:
    options = [(INT8,), (FLOAT32,), (INT8, FLOAT32), (LOW, INT8), (LOW, FLOAT32), (LOWEST, LOW), (INT8, LOW, FLOAT32)]
    menu = {layer.name: data.draw(st.sampled_from(options), layer.name) for layer in network.layers}
    allowed = {name: frozenset(variant.activation for variant in variants) for name, variants in menu.items()}
    ways = step_ways(network, menu)
    assert set(ways) == union_over_all_policies(network, menu)
    for key, alternatives in ways.items():
        for way in alternatives:
            found = list(islice(satisfied(way.demands, allowed), 3))
            assert found
            for domains in found:
                free = {name: tuple(v for v in menu[name] if v.activation in domains[name]) for name in menu}
                free |= {name: (variant,) for name, variant in way.variants.items()}
                for chosen in product(*free.values()):
                    variants = dict(zip(free, chosen, strict=True))
                    assert key in policy_steps(network, variants, kernels=way.kernels).values()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"signature": ""}, "needs a signature"),
        ({"kernel": "magic"}, "runs on floats, bytes, bits, lookup or no kernel, not 'magic'"),
        ({"output": ""}, "writes formats of f32, u8, u4, u2, u1 in this order, not ''"),
        ({"output": "u8+f32"}, "in this order"),
        ({"output": "u8+u8"}, "in this order"),
        ({"threads": 0}, "at least one thread"),
        ({"batch": 0}, "one image"),
    ],
)
def test_impossible_keys_are_refused(change: dict[str, Any], reason: str) -> None:
    key = StepKey("conv", "int8", "bytes", "u8", 1, 1)
    with pytest.raises(ValueError, match=reason):
        replace(key, **change)


def test_a_node_without_readers_is_kept_in_f32() -> None:
    network = Network(
        (
            Node("x", Input(), (), (4, 2, 2)),
            Node("dead", Concat(), ("x", "x"), (8, 2, 2)),
            Node("y", Conv2d((1, 1)), ("x",), (4, 2, 2)),
        ),
        ("y",),
    )
    assert derive_formats(network, {"y": INT8}).kept["dead"] == {F32}
    assert all_keys(network, {"y": (INT8,)}) == union_over_all_policies(network, {"y": (INT8,)})
