"""The keys of executor steps: which steps a policy executes, and which any policy of a menu can execute."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitplan.formats import derive_formats
from bitplan.network import Add, Concat, Conv2d, Input, Linear, MaxPool, Mean, Network, Node, Slice, Softmax
from bitplan.profiles.steps import all_keys, policy_steps, quantise_key, step_key, step_ways
from bitplan.variant import F32, FLOAT32, OPERATION, U8, Variant

INT8, BINARY = Variant("int8"), Variant("binary")


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


def test_a_step_is_keyed_by_signature_variant_output_threads_and_batch() -> None:
    network = residual_network()
    key = step_key(network, network.by_name["b"], Variant("apb", U8, (("kept", 0.01),)), U8, 2, 4)
    assert key.signature == network.signature(network.by_name["b"])
    assert (key.variant, key.output, key.threads, key.batch) == ("apb:kept=0.01", "u8", 2, 4)
    assert step_key(network, network.by_name["pool"], OPERATION[U8], U8).variant == "none/u8"
    assert quantise_key(network, network.by_name["pool"]).signature == "quantise o16x4x4"


def test_a_value_kept_in_both_formats_is_written_as_f32_and_converted_in_a_step_of_its_own() -> None:
    network = residual_network()
    steps = policy_steps(network, {"a": INT8, "b": FLOAT32, "c": INT8, "head": INT8})
    assert list(steps) == ["image", "a", "pool", "pool:u8", "b", "c", "mean", "head"]
    assert steps["image"].output == U8 and steps["image"].variant == "none/f32"
    assert steps["a"].output == F32  # pool reads f32 because its value is kept in both
    assert steps["pool:u8"] == quantise_key(network, network.by_name["pool"])
    assert steps["b"].output == U8 and steps["c"].output == U8 and steps["mean"].variant == "none/u8"
    assert steps["head"].output == F32


def union_over_all_policies(network: Network, menu: dict[str, tuple[Variant, ...]]) -> set[object]:
    return {
        key
        for chosen in product(*menu.values())
        for key in policy_steps(network, dict(zip(menu, chosen, strict=True))).values()
    }


@pytest.mark.parametrize("head", [(INT8, FLOAT32), (INT8,), (FLOAT32,)])
def test_all_keys_are_exactly_those_of_all_policies(head: tuple[Variant, ...]) -> None:
    network = residual_network()
    menu = {"a": (INT8, BINARY), "b": (INT8, FLOAT32), "c": (INT8, FLOAT32), "head": head}
    assert all_keys(network, menu) == union_over_all_policies(network, menu)


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
    options = [(INT8,), (FLOAT32,), (INT8, FLOAT32)]
    menu = {layer.name: data.draw(st.sampled_from(options), layer.name) for layer in network.layers}
    ways = step_ways(network, menu)
    assert set(ways) == union_over_all_policies(network, menu)
    for key, alternatives in ways.items():
        for way in alternatives:
            free = {name: menu[name] for name in menu}
            for name, form in way.formats.items():
                free[name] = tuple(variant for variant in menu[name] if variant.activation == form)
            free |= {name: (variant,) for name, variant in way.variants.items()}
            for chosen in product(*free.values()):
                assert key in policy_steps(network, dict(zip(free, chosen, strict=True))).values()


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
