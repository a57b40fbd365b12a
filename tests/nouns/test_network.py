from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitplan.compute import KERNELS, kernels_for, supports_format
from bitplan.formats import Range, derive_formats, in_order, residual_format, top_code
from bitplan.kernels.arena import lifetimes, peak_bytes, plan_arena, value_bytes
from bitplan.network import (
    RELU,
    Activation,
    Add,
    Conv2d,
    Input,
    Linear,
    Mean,
    Network,
    Node,
    Preprocessing,
    Softmax,
    WeightShape,
    weights_hash,
)
from bitplan.variant import FLOAT32, FORMATS, Variant

INT4, BINARY_U1 = Variant("int4"), Variant("binary", "u1")
CONV = Conv2d((3, 3), padding=(1, 1, 1, 1), activation=RELU)


def residual_network() -> Network:
    return Network(
        (
            Node("x", Input(), (), (3, 8, 8)),
            Node("a", CONV, ("x",), (16, 8, 8)),
            Node("b", CONV, ("a",), (16, 8, 8)),
            Node("c", CONV, ("b", "a"), (16, 8, 8)),
            Node("sum", Add(), ("c", "b"), (16, 8, 8)),
            Node("mean", Mean(), ("sum",), (16,)),
            Node("fc", Linear(), ("mean",), (10,)),
        ),
        ("fc",),
    )


def test_a_network_refuses_what_is_no_graph() -> None:
    x = Node("x", Input(), (), (3, 8, 8))
    with pytest.raises(ValueError, match="two nodes"):
        Network((x, x), ("x",))
    with pytest.raises(ValueError, match="'later'"):
        Network((x, Node("a", Mean(), ("later",), (3,))), ("a",))
    with pytest.raises(ValueError, match="output 'y'"):
        Network((x,), ("y",))
    with pytest.raises(ValueError, match="empty shape"):
        Network((Node("x", Input(), (), (0, 8, 8)),), ("x",))


def test_weight_shapes() -> None:
    network = residual_network()
    assert [node.name for node in network.layers] == ["a", "b", "c", "fc"]
    assert network.weight_shape(network.by_name["a"]) == WeightShape(16, 3, (3, 3))
    with pytest.raises(TypeError, match="no weight"):
        network.weight_shape(network.by_name["mean"])
    assert WeightShape(8, 8, (3, 3), 8).depthwise
    assert not WeightShape(1, 1).depthwise


def test_signatures_ignore_names_and_know_shapes() -> None:
    network = residual_network()
    a, b, c = (network.signature(network.by_name[name]) for name in "abc")
    assert b != c, "a residual input is part of the signature"
    assert a != b
    renamed = Network(tuple(dataclasses.replace(n) for n in network), network.outputs)
    assert renamed.signature(renamed.by_name["b"]) == b


def test_hashes_see_every_change() -> None:
    network = residual_network()
    other = Network(network.nodes, network.outputs, Preprocessing((1.0,), (2.0,)))
    assert network.content_hash == residual_network().content_hash != other.content_hash
    one = {"a.weight": np.zeros((2, 3), np.float32)}
    assert weights_hash(one) != weights_hash({"a.weight": np.zeros((3, 2), np.float32)})


def test_preprocessing_is_validated() -> None:
    with pytest.raises(ValueError, match="one of each"):
        Preprocessing((1.0,), ())
    with pytest.raises(ValueError, match="positive"):
        Preprocessing((1.0,), (0.0,))
    with pytest.raises(ValueError, match="not one of"):
        Activation("swoosh")


def test_formats_follow_the_readers() -> None:
    network = residual_network()
    both = frozenset({"f32", "u8"})
    formats = derive_formats(network, {"a": INT4, "b": FLOAT32, "c": INT4, "fc": INT4})
    assert formats.kept["x"] == {"u8"}
    assert formats.kept["a"] == both, "b reads it in f32, c's residual in u8"
    assert formats.kept["b"] == {"u8"}, "the add follows its own value, which only u8 readers read"
    assert formats.kept["fc"] == {"f32"}, "an output"
    assert formats.read["sum"] == formats.read["mean"] == "u8"
    floats = derive_formats(network, dict.fromkeys("abc", FLOAT32) | {"fc": FLOAT32})
    assert set().union(*floats.kept.values()) == {"f32"}


def test_softmax_reads_floats() -> None:
    network = Network(
        (
            Node("x", Input(), (), (4,)),
            Node("fc", Linear(), ("x",), (4,)),
            Node("p", Softmax(), ("fc",), (4,)),
            Node("out", Linear(), ("p",), (4,)),
        ),
        ("out",),
    )
    formats = derive_formats(network, {"fc": INT4, "out": INT4})
    assert formats.read["p"] == "f32"
    assert formats.kept["p"] == {"u8"}


def test_low_formats_follow_the_readers_too() -> None:
    network = residual_network()
    formats = derive_formats(network, {"a": FLOAT32, "b": INT4, "c": BINARY_U1, "fc": BINARY_U1})
    assert formats.read["c"] == "u1"
    assert formats.kept["a"] == {"u8"}, "b reads it, and c as its residual, which codes read in u8"
    assert formats.kept["b"] == {"f32", "u1"}
    assert formats.kept["mean"] == {"f32", "u1"}, "an operation without weights makes f32, from which codes follow"
    assert formats.read["mean"] == formats.read["sum"] == "f32"
    several = derive_formats(network, {"a": INT4, "b": BINARY_U1, "c": FLOAT32, "fc": INT4})
    assert several.kept["a"] == {"f32", "u1"}, "a layer makes what its readers want and nothing else"
    assert [residual_format(form) for form in FORMATS] == ["f32", "u8", "u8", "u8", "u8"]
    assert in_order(frozenset({"u1", "u8", "f32"})) == ("f32", "u8", "u1")


@given(st.lists(st.sampled_from([FLOAT32, INT4, BINARY_U1, Variant("ternary", "u2")]), min_size=4, max_size=4))
def test_the_arena_never_overlaps_and_meets_its_bound(choice: list[Variant]) -> None:
    network = residual_network()
    formats = derive_formats(network, dict(zip(["a", "b", "c", "fc"], choice, strict=True)))
    arena = plan_arena(network, formats)
    alive = lifetimes(network)
    blocks = []
    for name, offset in arena.offsets.items():
        size = sum(value_bytes(network.by_name[name].shape, form) for form in formats.kept[name])
        blocks.append((offset, offset + size, alive[name]))
    for i, (start, end, (first, last)) in enumerate(blocks):
        assert end <= arena.size
        for other_start, other_end, (other_first, other_last) in blocks[:i]:
            together = first <= other_last and other_first <= last
            assert not together or end <= other_start or other_end <= start
    assert arena.size >= peak_bytes(network, formats)


@pytest.mark.parametrize(("scale", "zero"), [(0.0, 0), (-1.0, 0), (float("inf"), 0), (1.0, 256), (1.0, -1), (1.0, 0.3)])
def test_ranges_are_validated(scale: float, zero: float) -> None:
    with pytest.raises(ValueError, match="range"):
        Range(scale, zero)
    with pytest.raises(ValueError, match=r"whole or 0\.5"):
        Range(1.0, 1.5)


def test_what_a_range_pads_with_and_where_one_bit_changes() -> None:
    assert [Range(2.0, zero).padding for zero in (0, 0.5, 1, 128)] == [0, 0, 1, 128]
    assert [float(Range(2.0, zero).threshold()) for zero in (0, 0.5, 1)] == [1.0, 0.0, -1.0]
    assert [top_code(form) for form in ("u8", "u4", "u2", "u1")] == [255, 15, 3, 1]


@pytest.mark.parametrize("activation", FORMATS)
@pytest.mark.parametrize("encoding", ["float32", "int8", "binary"])
def test_kernels_fit_the_format(encoding: str, activation: str) -> None:
    kernels = kernels_for(Variant(encoding, activation))
    assert set(kernels) <= set(KERNELS)
    assert (kernels == ("floats",)) == (activation == "f32")
    assert ("bits" in kernels) == (encoding == "binary" and activation in ("u4", "u2", "u1")) == ("lookup" in kernels)
    grouped, plain = WeightShape(8, 8, (3, 3), 2), WeightShape(8, 8)
    assert supports_format(plain, activation)
    assert supports_format(grouped, activation) == (activation in ("f32", "u8"))


@pytest.mark.parametrize("text", ["int4", "apb:kept=0.01", "float32", "binary@u2", "apb@u1:kept=0.02", "int8@f32"])
def test_variants_are_written_as_they_are_read(text: str) -> None:
    assert str(Variant.parse(text)) == text


@pytest.mark.parametrize(
    "text", ["", "Int4", "apb:kept", "apb:kept=x", "apb:=1", "4bit", "binary@u3", "binary@", "@u2"]
)
def test_variants_that_cannot_be_read_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="variant"):
        Variant.parse(text)
