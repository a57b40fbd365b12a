"""Files with right checksums that break a rule of the graph or of the weights are refused by node and rule."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import replace
from math import nan

import numpy as np
import pytest

from bitplan.encodings.channel_numbers import SHORT_FLOATS
from bitplan.formats import Formats, derive_formats
from bitplan.kernels import artifact
from bitplan.kernels.arena import Arena, plan_arena, value_bytes
from bitplan.network import (
    Activation,
    Add,
    AveragePool,
    Concat,
    Conv2d,
    Input,
    Linear,
    MaxPool,
    Mean,
    Network,
    Node,
    Op,
    Pad,
    Permute,
    Reshape,
    ScaleShift,
    Shape,
    Slice,
    Softmax,
)
from bitplan.variant import F32, FLOAT32, U1, U2, U4, U8, Variant

from .hostile import (
    APB,
    INT8,
    NODE_RECORD,
    TERNARY,
    WEIGHT_RECORD,
    XOR,
    after_image,
    one_layer,
    pack,
    patched,
    record_of,
    refused,
    restructured,
    structure,
    survives,
    weight_record_of,
)
from .networks import make_case, network_of, random_inputs


@pytest.mark.parametrize(
    ("op", "inputs", "shape", "words"),
    [
        (Conv2d((3, 3)), ("x",), (5, 6, 6), ["(5, 6, 6)", "(5, 4, 4)"]),
        (Conv2d((9, 3)), ("x",), (5, 1, 4), ["window of 9", "size 6"]),
        (Conv2d((1, 1), (0, 1)), ("x",), (5, 6, 6), ["at least 1"]),
        (Conv2d((1, 1)), ("v",), (5, 6, 6), ["(channels, height, width)"]),
        (Conv2d((1, 1)), ("x", "y"), (5, 6, 6), ["residual", "(5, 6, 6)"]),
        (Linear(), ("x",), (4, 6, 6), ["reads an image"]),
        (Linear(), ("v", "v", "v"), (4,), ["3 inputs", "1 to 2"]),
        (Add(), ("x", "v"), (4, 6, 6), ["do not go together"]),
        (Add(), ("x",), (4, 6, 6), ["1 inputs", "expected 2"]),
        (Concat(), ("x", "v"), (8, 6, 6), ["differ behind the first axis"]),
        (Concat(), ("x", "y"), (9, 6, 6), ["(9, 6, 6)", "(8, 6, 6)"]),
        (MaxPool((2, 2), (2, 2)), ("x",), (4, 3, 2), ["(4, 3, 2)", "(4, 3, 3)"]),
        (AveragePool((7, 7), (1, 1)), ("x",), (4, 1, 1), ["window of 7"]),
        (Mean(), ("x",), (4, 1, 1), ["(4)"]),
        (Pad((1, 0, 0, 0)), ("x",), (4, 6, 6), ["(4, 7, 6)"]),
        (Slice(((0, 4, 1), (0, 7, 1), (0, 6, 1))), ("x",), (4, 7, 6), ["0:7:1", "axis 1"]),
        (Slice(((0, 4, 0), (0, 6, 1), (0, 6, 1))), ("x",), (4, 6, 6), ["0:4:0"]),
        (Slice(((0, 8, 1), (0, 6, 1))), ("v",), (8, 6), ["another rank"]),
        (Reshape(), ("x",), (143,), ["different numbers of elements"]),
        (Permute((0, 1, 1)), ("x",), (4, 6, 6), ["no permutation"]),
        (Permute((0, 2, 3)), ("x",), (4, 6, 6), ["no permutation"]),
        (Softmax(), ("v", "v"), (8,), ["2 inputs"]),
        (ScaleShift(Activation("clamp", 1.0, 0.0)), ("v",), (8,), ["low <= high"]),
        (ScaleShift(Activation("clamp", nan, 1.0)), ("v",), (8,), ["low <= high"]),
    ],
)
def test_shapes_must_follow_from_the_inputs(op: Op, inputs: tuple[str, ...], shape: Shape, words: list[str]) -> None:
    refused(pack(after_image(op, shape, inputs)), "node 3", *words)


def test_groups_must_divide_channels() -> None:
    network = after_image(Conv2d((1, 1), groups=2), (6, 6, 6))
    data = pack(network)
    at = structure(data).rindex(struct.pack("<10HI", 1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 2)) + 20
    refused(restructured(data, at, "I", 3), "3 groups do not divide 4 input and 6 output channels")
    refused(restructured(data, at, "I", 0), "0 groups")
    refused(restructured(data, at, "I", 1), "bytes", "needs")


@pytest.mark.parametrize(
    ("field", "layout", "value", "words"),
    [
        (0, "B", 0, ["layers of floats read f32", "this one has float32, u8 and bytes"]),
        (0, "B", 2, ["weights have", "int4", "needs"]),
        (0, "B", 15, ["unknown encoding number 15; this version knows 0 to 14"]),
        (1, "B", 0, ["layers of floats read f32", "this one has int8, u8 and floats"]),
        (1, "B", 2, ["the kernel bits runs ternary, binary, apb and xor on u4, u2 and u1", "int8 and u8"]),
        (1, "B", 3, ["the kernel lookup runs ternary"]),
        (1, "B", 4, ["unknown kernel number 4; this version knows 0 to 3"]),
        (2, "I", 1, ["keeps 1 weights"]),
        (6, "I", 8, ["needs"]),
        (6, "I", 2**32 - 8, ["needs"]),
    ],
)
def test_records_of_weights_are_checked(field: int, layout: str, value: int, words: list[str]) -> None:
    data = pack(after_image(Conv2d((1, 1)), (6, 6, 6)))
    refused(patched(data, weight_record_of(data) + field, layout, value), "node 3", *words)


@pytest.mark.parametrize(("encoding", "activation"), [("binary", U8), ("int4", U1), ("ternary", U8)])
@pytest.mark.parametrize("kernel", [2, 3])
def test_kernels_on_bits_need_signs_and_few_bits(encoding: str, activation: str, kernel: int) -> None:
    data, _ = one_layer(Variant(encoding, activation))
    at = weight_record_of(data) + 1
    refused(
        patched(data, at, "B", kernel),
        "'op'",
        "runs ternary, binary, apb and xor on u4, u2 and u1",
        encoding,
        activation,
    )


def test_layers_with_groups_read_no_planes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifact, "supports_format", lambda *_: True)
    rng = np.random.default_rng(3)
    network = network_of([("x", Input(), (), (4, 6, 6)), ("op", Conv2d((1, 1), groups=2), ("x",), (6, 6, 6))], ["op"])
    data = make_case(network, {"op": Variant("int4", U4)}, random_inputs(network, 1, rng), rng).artifact
    refused(data, "'op'", "a layer of 2 groups reads f32 or u8, not u4")


def test_inputs_must_come_earlier() -> None:
    data = pack(after_image(Reshape(), (144,)))
    whole = structure(data)
    at = whole.index(struct.pack("<BHH", 1, 3, 2) + b"op") + 1
    refused(restructured(data, at, "H", 4), "node 3", "reads the node 4 before it; expected 1 to 3")
    refused(restructured(data, at, "H", 0), "reads the node 0 before it")
    refused(restructured(data, at, "H", 65535), "reads the node 65535 before it")
    refused(restructured(data, len(whole) - 8, "H", 4), "output 4 is no node")
    refused(restructured(data, len(whole) - 8, "H", 0), "node 0 'x' (input): an output twice")


def test_names_are_unique() -> None:
    data = pack(after_image(Reshape(), (144,)))
    refused(restructured(data, structure(data).index(b"\1\0y") + 2, "c", b"x"), "earlier node is called 'x'")


def test_layers_that_read_the_same_agree_on_its_range() -> None:
    rng = np.random.default_rng(0)
    network = network_of(
        [
            ("x", Input(), (), (4, 6, 6)),
            ("left", Conv2d((1, 1)), ("x",), (6, 6, 6)),
            ("right", Conv2d((1, 1)), ("x",), (6, 6, 6)),
        ],
        ["left", "right"],
    )
    variants = dict.fromkeys(("left", "right"), Variant("int4", U4))
    data = make_case(network, variants, random_inputs(network, 1, rng), rng).artifact
    at = record_of(data, "right") + NODE_RECORD + WEIGHT_RECORD
    assert survives(data)
    refused(patched(data, at, "f", 2.5), "'right'", "another range than an earlier layer for 'x' in u4")
    refused(patched(data, at, "f", 0.0), "the scale of what it reads in u4 is 0")
    refused(patched(data, at + 4, "B", 16), "the zero point of what it reads in u4 is 16; expected 0 to 15")


@pytest.mark.parametrize(
    ("kept", "read", "words"),
    [
        ({"x": [F32]}, {}, ["'x'", "kept in f32; those who read it make that u8"]),
        ({"x": [U8, U1]}, {}, ["'x'", "kept in u8+u1; those who read it make that u8"]),
        ({}, {"op": F32}, ["'x'", "kept in u8; those who read it make that f32"]),
        ({"x": [F32]}, {"op": F32}, ["'op'", "layers of floats read f32"]),
        ({}, {"op": U2}, ["'x'", "kept in u8; those who read it make that f32+u2"]),
        ({"op": [F32, U4]}, {}, ["'op'", "kept in f32+u4; those who read it make that f32"]),
        ({"op": [U8]}, {"z": U8}, ["'z'", "it reads u8; an operation without weights reads u8 where"]),
        ({"z": [U8]}, {}, ["'z'", "it reads f32; an operation without weights reads u8 where"]),
        ({"z": [U8], "op": [U8]}, {"z": U8}, ["'z'", "kept in u8; those who read it make that f32"]),
    ],
)
def test_formats_must_agree(
    kept: Mapping[str, list[str]], read: Mapping[str, str], words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    derive = derive_formats

    def tampered(network: Network, variants: Mapping[str, Variant]) -> Formats:
        formats = derive(network, variants)
        changed = {name: frozenset(forms) for name, forms in kept.items()}
        return Formats({**formats.kept, **changed}, {**formats.read, **read})

    monkeypatch.setattr(artifact, "derive_formats", tampered)
    network = network_of(
        [
            ("x", Input(), (), (4, 6, 6)),
            ("op", Conv2d((1, 1)), ("x",), (6, 6, 6)),
            ("z", Mean(), ("op",), (6,)),
        ],
        ["z"],
    )
    refused(pack(network), *words)


def test_values_must_not_overlap_while_both_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_arena

    def tampered(network: Network, formats: Formats) -> Arena:
        arena = plan(network, formats)
        return Arena({**arena.offsets, "op": arena.offsets["x"] + 4}, arena.size + 64)

    monkeypatch.setattr(artifact, "plan_arena", tampered)
    refused(pack(after_image(Reshape(), (144,))), "its value overlaps that of '", "while both are needed")


def test_all_formats_of_a_value_need_their_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """A later value that begins where only the first format of an earlier one ends."""
    plan = plan_arena

    def tampered(network: Network, formats: Formats) -> Arena:
        arena = plan(network, formats)
        assert formats.kept["op"] == {F32, U8}
        return Arena({"x": 0, "op": 4096, "z": 4096 + value_bytes((6, 6, 6), F32)}, 16384 + arena.size)

    monkeypatch.setattr(artifact, "plan_arena", tampered)
    network = network_of(
        [
            ("x", Input(), (), (4, 6, 6)),
            ("op", Conv2d((1, 1)), ("x",), (6, 6, 6)),
            ("z", Conv2d((1, 1)), ("op",), (6, 6, 6)),
        ],
        ["op", "z"],
    )
    refused(pack(network), "'z'", "its value overlaps that of 'op' in the arena while both are needed")


def test_offsets_of_floats_are_multiples_of_four(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_arena

    def tampered(network: Network, formats: Formats) -> Arena:
        arena = plan(network, formats)
        return Arena({**arena.offsets, "op": arena.size + 2}, arena.size + 1024)

    monkeypatch.setattr(artifact, "plan_arena", tampered)
    refused(pack(after_image(Reshape(), (144,))), "no multiple of 4")


def test_packed_weights_are_checked() -> None:
    codes = 8 + 4 * 20
    data, at = one_layer(INT8)
    refused(patched(data, at, "f", float("nan")), "'op'", "unit of the scales is")
    refused(patched(data, at + 4, "f", float("inf")), "unit of the biases is inf")
    refused(patched(data, at + 8, "H", 0x7C00), "a scale is inf")
    refused(patched(data, at + 8 + 40, "H", 0x7E00), "a bias is")
    refused(patched(data, at + codes, "b", -128), "level of -128")
    data, at = one_layer(TERNARY)
    refused(patched(data, at + codes, "B", 243), "243 is not five ternary digits")
    data, at = one_layer(FLOAT32)
    refused(patched(data, at, "f", float("nan")), "a bias is")
    refused(patched(data, at + 80, "f", float("-inf")), "a weight is -inf")


def test_codes_of_xor_layers_are_checked() -> None:
    data, at = one_layer(XOR)
    refused(
        patched(data, at + SHORT_FLOATS.size_bytes(20) + 1, "B", 0),
        "'op'",
        "density of its network is 0; expected 1 to 255",
    )
    record = weight_record_of(data)
    refused(patched(data, record + 2, "I", 0), "'op'", "rate of its code is 0 sixteenths; expected 1 to 96")
    refused(patched(data, record + 2, "I", 97), "rate of its code is 97")
    refused(patched(data, record + 2, "I", 2**32 - 1), "rate of its code is 4294967295")
    refused(patched(data, record + 2, "I", 48), "its weights have", "xor of its shape needs")


def test_damaged_xor_layers_never_crash() -> None:
    data, at = one_layer(XOR)
    for position in range(record_of(data, "op"), len(data)):
        for value in (0, 1, 255, data[position] ^ 1 << position % 8):
            survives(patched(data, position, "B", value))
    assert survives(
        patched(data, at + SHORT_FLOATS.size_bytes(20) + 2, "20s", b"\xff" * 20)
    )  # every code stands for some weights


@pytest.mark.parametrize(("scales", "biases"), [(2, 4), (8, 4), (5, 1), (5, 7)])
def test_mantissas_of_short_floats_are_checked(scales: int, biases: int) -> None:
    data, at = one_layer(XOR)
    words = f"scales have a mantissa of {scales} bits and its biases one of {biases}; expected 3 to 7 and 2 to 6"
    refused(patched(data, at + 8, "B", scales + 16 * biases), "'op'", words)


def test_kept_weights_are_checked() -> None:
    data, at = one_layer(APB)
    kept, count = round(0.04 * 600), 600
    unit = at + 8 + 80 + count // 8
    refused(patched(data, unit, "B", 0), "'op'", "the unit of its levels is 0; expected 1 to 63")
    refused(patched(data, unit, "B", 64), "the unit of its levels is 64")
    refused(patched(data, unit + 1, "b", 64), "the level of a kept weight is 64; expected -63 to 63")
    refused(patched(data, unit + kept, "b", -64), "the level of a kept weight is -64")
    low_bits = 4  # floor(log2(600 / 24))
    lows = unit + 1 + kept
    bitmap = lows + kept * low_bits // 8
    refused(patched(data, bitmap + 1, "7s", bytes(7)), "entries; 24 were announced")
    size = (kept + (count >> low_bits) + 1 + 7) // 8
    late = np.zeros(8 * size, np.uint8)
    late[-kept:] = 1
    refused(patched(data, bitmap, f"{size}s", np.packbits(late, bitorder="little").tobytes()), "leave the layer")
    equal = np.zeros(8 * size, np.uint8)
    equal[:kept] = 1
    data = patched(data, lows, f"{kept * low_bits // 8}s", bytes(kept * low_bits // 8))
    refused(patched(data, bitmap, f"{size}s", np.packbits(equal, bitorder="little").tobytes()), "not ascending")


def test_kept_magnitudes_and_the_unit_of_apb4_are_checked() -> None:
    data, at = one_layer(Variant.parse("apb4:kept=0.04"))
    unit = at + 8 + 80 + 600 // 8
    refused(patched(data, unit, "B", 0), "'op'", "the unit of its levels is 0; expected 1 to 7")
    refused(patched(data, unit, "B", 8), "the unit of its levels is 8; expected 1 to 7")
    assert survives(patched(data, unit + 1, "9s", bytes(9)))
    assert survives(patched(data, unit + 1, "9s", b"\xff" * 9))


def test_a_sum_that_could_exceed_32_bits_is_refused() -> None:
    nodes = (Node("v", Input(), (), (70000,)), Node("op", Linear(), ("v",), (1,)))
    network = Network(nodes, ("op",))
    refused(pack(network, lambda layer: replace(layer, levels=layer.levels * np.int8(127))), "exceed 32 bits")
    assert survives(pack(network))
