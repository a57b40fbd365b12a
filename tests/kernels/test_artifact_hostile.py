"""The reader trusts nothing: whatever a file holds, it is refused with a clear error or it runs; it never crashes."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from math import nan
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bitplan.encodings import EncodedLayer
from bitplan.errors import FileFormatError
from bitplan.formats import Formats, Range, derive_formats
from bitplan.kernels import Runtime, artifact
from bitplan.kernels.arena import Arena, plan_arena, value_bytes
from bitplan.network import (
    RELU,
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

from .networks import make_case, network_of, random_inputs

HEADER = 112
INT8, TERNARY, APB = Variant("int8"), Variant("ternary"), Variant.parse("apb:kept=0.04")
CONV_1X1 = struct.pack("<10HI", 1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1)
"""The fields of a 1x1 convolution without groups; its weight record lies behind them."""


def everything() -> Network:
    """One of each operation, as small as can be."""
    return network_of(
        [
            ("x", Input(), (), (2, 6, 6)),
            ("conv", Conv2d((3, 3), (1, 1), (1, 1, 1, 1), activation=RELU), ("x",), (5, 6, 6)),
            ("dw", Conv2d((3, 3), (1, 1), (1, 1, 1, 1), groups=5), ("conv",), (5, 6, 6)),
            ("apb", Conv2d((1, 1)), ("dw", "conv"), (5, 6, 6)),
            ("max", MaxPool((2, 2), (2, 2)), ("apb",), (5, 3, 3)),
            ("average", AveragePool((3, 3), (1, 1), (1, 1, 1, 1)), ("max",), (5, 3, 3)),
            ("gate", Mean(True), ("average",), (5, 1, 1)),
            ("add", Add(), ("average", "gate"), (5, 3, 3)),
            ("shifted", ScaleShift(), ("add",), (5, 3, 3)),
            ("joined", Concat(), ("shifted", "average"), (10, 3, 3)),
            ("padded", Pad((1, 0, 0, 1), (0, 1)), ("joined",), (11, 4, 4)),
            ("sliced", Slice(((0, 11, 2), (0, 4, 1), (1, 4, 2))), ("padded",), (6, 4, 2)),
            ("turned", Permute((1, 2, 0)), ("sliced",), (4, 2, 6)),
            ("flat", Reshape(), ("turned",), (48,)),
            ("linear", Linear(), ("flat",), (4,)),
            ("probabilities", Softmax(), ("linear",), (4,)),
        ],
        ["probabilities", "conv"],
    )


@cache
def sample() -> bytes:
    rng = np.random.default_rng(0)
    network = everything()
    variants = {"conv": Variant("ternary", U2), "dw": Variant("int4"), "apb": replace(APB, activation=U4)}
    variants["linear"] = FLOAT32
    kernels = {"conv": "lookup", "apb": "bits"}
    return make_case(network, variants, random_inputs(network, 2, rng), rng, planned_batch=2, kernels=kernels).artifact


def repaired(data: bytes) -> bytes:
    """The same with both checksums put right, so that what lies behind them is reached."""
    if len(data) < HEADER:
        return data
    head = data[:88] + struct.pack("<I", zlib.crc32(data[HEADER:])) + data[92:108]
    return head + struct.pack("<I", zlib.crc32(head)) + data[HEADER:]


def resized(data: bytes) -> bytes:
    """The same with the sizes in the header put right too, at the expense of the weights."""
    graph = struct.unpack_from("<Q", data, 24)[0]
    weights = max(len(data) - HEADER - graph, 0)
    graph = len(data) - HEADER - weights
    return repaired(data[:16] + struct.pack("<QQQ", len(data), graph, weights) + data[40:])


def patched(data: bytes, at: int, layout: str, *values: object) -> bytes:
    new = struct.pack("<" + layout, *values)
    return repaired(data[:at] + new + data[at + len(new) :])


def survives(data: bytes) -> bool:
    """Whether the artifact is accepted; an accepted one must run. MemoryError is a clean refusal as well."""
    try:
        runtime = Runtime.from_bytes(data)
        arrays = {name: np.ones((1, *shape), np.float32) for name, shape in runtime.inputs.items()}
        outputs = runtime(arrays)
    except (FileFormatError, MemoryError):
        return False
    assert {name: array.shape[1:] for name, array in outputs.items()} == runtime.outputs
    return True


def refused(data: bytes, *words: str) -> None:
    with pytest.raises(FileFormatError) as error:
        Runtime.from_bytes(data)
    for word in words:
        assert word in str(error.value)


def test_the_sample_itself_runs() -> None:
    assert survives(sample())
    assert repaired(sample()) == sample() == resized(sample())


def test_every_truncation_is_refused() -> None:
    data = sample()
    for length in range(len(data)):
        assert not survives(data[:length])
        if length > HEADER:
            assert not survives(resized(data[:length]))
    assert not survives(data + b"\0")
    assert not survives(resized(data + bytes(8)))


def test_every_flipped_bit_is_refused_as_it_stands() -> None:
    data = sample()
    for position in range(len(data)):
        flipped = bytes([data[position] ^ 1 << position % 8])
        assert not survives(data[:position] + flipped + data[position + 1 :])


def test_flipped_bits_behind_right_checksums_never_crash() -> None:
    data = sample()
    refusals = 0
    for position in range(8, len(data)):
        for bit in range(8) if position % 3 == 0 else (position % 8,):
            flipped = bytes([data[position] ^ 1 << bit])
            refusals += not survives(repaired(data[:position] + flipped + data[position + 1 :]))
    assert refusals > len(data) / 4  # most of the graph is bound by rules


@settings(max_examples=600, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=4)), min_size=1, max_size=4), st.booleans())
def test_random_damage_never_crashes(changes: list[tuple[float, bytes]], in_graph: bool) -> None:
    data = sample()
    span = struct.unpack_from("<Q", data, 24)[0] if in_graph else len(data) - HEADER
    for place, new in changes:
        at = HEADER + int(place * (span - len(new)))
        data = data[:at] + new + data[at + len(new) :]
    survives(repaired(data))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=100))
def test_random_bytes_are_no_artifact(data: bytes) -> None:
    refused(data, "truncated" if data.startswith(b"BITPLAN\0") else "not a bitplan artifact")


@settings(max_examples=200, deadline=None)
@given(st.binary(min_size=1, max_size=300))
def test_random_graphs_are_refused(graph: bytes) -> None:
    head = sample()[:24] + struct.pack("<QQ", len(graph), 0) + sample()[40:HEADER]
    data = head + graph
    refused(repaired(data[:16] + struct.pack("<Q", len(data)) + data[24:]))


@pytest.mark.parametrize(
    ("at", "layout", "value", "words"),
    [
        (8, "I", 1, ["version 1", "reads version 2"]),
        (12, "I", 96, ["96", "112"]),
        (16, "Q", 12, ["header says 12"]),
        (24, "Q", 2**63, ["do not add up"]),
        (32, "Q", 2**64 - 1, ["do not add up"]),
        (40, "Q", 2**40, ["2^40"]),
        (40, "Q", 64, ["leaves the arena of 64 bytes"]),
        (48, "I", 0, ["planned batch is 0"]),
        (48, "I", 2**32 - 1, ["2^40"]),
        (52, "H", 0, ["0 nodes"]),
        (52, "H", 15, ["graph has"]),
        (52, "H", 17, ["graph ends inside"]),
        (54, "H", 0, ["0 outputs"]),
        (54, "H", 3, ["graph ends inside the outputs"]),
        (92, "B", 1, ["reserved"]),
        (116, "H", 1, ["node 0"]),
        (118, "B", 16, ["unknown operation number 16"]),
        (119, "B", 6, ["unknown activation number 6"]),
        (119, "B", 2, ["'x'", "cannot have an activation"]),
        # x is kept in f32 and u2
        (120, "B", 0, ["formats 0", "1 to 31"]),
        (120, "B", 32, ["formats 32", "1 to 31"]),
        (120, "B", 1, ["range in u2, which it is not kept in"]),
        (120, "B", 1 + 8 + 16, ["kept in f32+u2+u1; those who read it make that f32+u2"]),
        (120, "B", 8, ["kept in u2; those who read it make that f32+u2"]),
        (121, "B", 6, ["format it reads is 6"]),
        (121, "B", 1, ["no inputs"]),
        (122, "f", 2.0, ["range in u8, which it is not kept in"]),
        (126, "B", 1, ["range in u8, which it is not kept in"]),
        (127, "f", 0.0, ["in u4 is 0"]),
        (131, "B", 16, ["zero point", "in u4 is 16", "0 to 15"]),
        (132, "f", 0.0, ["scale of its value in u2 is 0"]),
        (132, "f", -1.0, ["scale of its value in u2 is -1"]),
        (132, "f", float("inf"), ["in u2 is inf"]),
        (132, "f", float("nan"), ["scale of its value in u2"]),
        (136, "B", 4, ["zero point", "in u2 is 4", "0 to 3"]),
        (141, "B", 3, ["zero point", "in u1 is 3", "0 to 2"]),
        (142, "I", 2, ["no multiple of 4"]),
        (142, "I", 2**32 - 64, ["leaves the arena"]),
        (146, "B", 0, ["rank is 0"]),
        (146, "B", 9, ["rank is 9"]),
        (147, "I", 0, ["size of zero on axis 0"]),
        (147, "III", (2**31, 2**31, 2**31), ["2^32 elements"]),
        (159, "B", 1, ["node 0"]),
        (160, "H", 0, ["name is empty"]),
        (162, "B", 0xFF, ["no UTF-8"]),
    ],
)
def test_each_number_of_header_and_record_is_checked(at: int, layout: str, value: object, words: list[str]) -> None:
    values = value if isinstance(value, tuple) else (value,)
    refused(patched(sample(), at, layout, *values), *words)


def test_checksums_are_named() -> None:
    data = sample()
    refused(data[:60] + bytes([data[60] ^ 1]) + data[61:], "header is damaged")
    refused(data[:-1] + bytes([data[-1] ^ 1]), "graph or weights are damaged")


def test_errors_of_a_file_name_it(tmp_path: Path) -> None:
    path = tmp_path / "broken.bitplan"
    path.write_bytes(sample()[:-5])
    with pytest.raises(FileFormatError, match=r"broken\.bitplan: truncated: the file has \d+ bytes; its header says"):
        Runtime.load(path)
    path.write_bytes(b"")
    with pytest.raises(FileFormatError, match="not a bitplan artifact"):
        Runtime.load(path)
    with pytest.raises(IsADirectoryError, match="tmp"):
        Runtime.load(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"absent\.bitplan"):
        Runtime.load(tmp_path / "absent.bitplan")


def pack(network: Network, change: Callable[[EncodedLayer], EncodedLayer] = lambda layer: layer) -> bytes:
    """Packs a network that may break the rules; its layers are int8, all weights one."""
    layers = {}
    for node in network.layers:
        shape = network.weight_shape(node)
        levels = np.ones((shape.out_channels, shape.in_channels // shape.groups, *shape.kernel), np.int8)
        ones = np.ones(shape.out_channels, np.float32)
        layers[node.name] = change(EncodedLayer(INT8, shape, ones, ones, levels))
    weights = {f"{node.name}.{part}": np.ones(8, np.float32) for node in network for part in ("scale", "shift")}
    ranges = {node.name: dict.fromkeys((U8, U4, U2, U1), Range(1.0, 0)) for node in network}
    return artifact.pack_artifact(network, weights, layers, ranges)


def after_image(op: Op, shape: Shape, inputs: tuple[str, ...] = ("x",)) -> Network:
    """x (4, 6, 6), y (4, 6, 6) and v (8,), then the operation."""
    nodes = [("x", Input(), (), (4, 6, 6)), ("y", Input(), (), (4, 6, 6)), ("v", Input(), (), (8,))]
    return network_of([*nodes, ("op", op, inputs, shape)], ["op", "x", "y", "v"])


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
    at = data.rindex(struct.pack("<10HI", 1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 2)) + 20
    refused(patched(data, at, "I", 3), "3 groups do not divide 4 input and 6 output channels")
    refused(patched(data, at, "I", 0), "0 groups")
    refused(patched(data, at, "I", 1), "bytes", "needs")


@pytest.mark.parametrize(
    ("field", "layout", "value", "words"),
    [
        (0, "B", 0, ["float32 layers read f32", "this one has float32, u8 and bytes"]),
        (0, "B", 2, ["weights have", "int4", "needs"]),
        (0, "B", 8, ["unknown encoding number 8; this version knows 0 to 7"]),
        (1, "B", 0, ["float32 layers read f32", "this one has int8, u8 and floats"]),
        (1, "B", 2, ["the kernel bits runs ternary, binary and apb on u4, u2 and u1", "int8 and u8"]),
        (1, "B", 3, ["the kernel lookup runs ternary"]),
        (1, "B", 4, ["unknown kernel number 4; this version knows 0 to 3"]),
        (2, "I", 1, ["keeps 1 weights"]),
        (6, "Q", 8, ["expected them at 0"]),
        (6, "Q", 2**64 - 8, ["expected them at 0"]),
        (14, "Q", 2**64 - 8, ["needs"]),
    ],
)
def test_records_of_weights_are_checked(field: int, layout: str, value: int, words: list[str]) -> None:
    data = pack(after_image(Conv2d((1, 1)), (6, 6, 6)))
    refused(patched(data, data.index(CONV_1X1) + len(CONV_1X1) + field, layout, value), "node 3", *words)


@pytest.mark.parametrize(("encoding", "activation"), [("binary", U8), ("int4", U1), ("ternary", U8)])
@pytest.mark.parametrize("kernel", [2, 3])
def test_kernels_on_bits_need_signs_and_few_bits(encoding: str, activation: str, kernel: int) -> None:
    data, _ = one_layer(Variant(encoding, activation))
    at = data.index(CONV_1X1) + len(CONV_1X1) + 1
    refused(
        patched(data, at, "B", kernel), "'op'", "runs ternary, binary and apb on u4, u2 and u1", encoding, activation
    )


def test_layers_with_groups_read_no_planes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifact, "supports_format", lambda *_: True)
    rng = np.random.default_rng(3)
    network = network_of([("x", Input(), (), (4, 6, 6)), ("op", Conv2d((1, 1), groups=2), ("x",), (6, 6, 6))], ["op"])
    data = make_case(network, {"op": Variant("int4", U4)}, random_inputs(network, 1, rng), rng).artifact
    refused(data, "'op'", "a layer of 2 groups reads f32 or u8, not u4")


def test_inputs_must_come_earlier() -> None:
    data = pack(after_image(Reshape(), (144,)))
    at = data.index(struct.pack("<BHH", 1, 0, 2) + b"op") + 1
    refused(patched(data, at, "H", 3), "node 3", "reads node 3")
    refused(patched(data, at, "H", 65535), "reads node 65535")
    refused(patched(data, len(data) - 8, "H", 4), "output 4 is no node")
    refused(patched(data, len(data) - 8, "H", 0), "node 0 'x' (input): an output twice")


def test_names_are_unique() -> None:
    data = pack(after_image(Reshape(), (144,)))
    refused(patched(data, data.index(b"\1\0y") + 2, "c", b"x"), "earlier node is called 'x'")


@pytest.mark.parametrize(
    ("kept", "read", "words"),
    [
        ({"x": [F32]}, {}, ["'x'", "kept in f32; those who read it make that u8"]),
        ({"x": [U8, U1]}, {}, ["'x'", "kept in u8+u1; those who read it make that u8"]),
        ({}, {"op": F32}, ["'x'", "kept in u8; those who read it make that f32"]),
        ({"x": [F32]}, {"op": F32}, ["'op'", "float32 layers read f32"]),
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


def one_layer(variant: Variant, shape: Shape = (20, 6, 6)) -> tuple[bytes, int]:
    """An artifact of one 1x1 convolution, and where its packed weights begin."""
    rng = np.random.default_rng(3)
    network = network_of([("x", Input(), (), (30, 6, 6)), ("op", Conv2d((1, 1)), ("x",), shape)], ["op"])
    data = make_case(network, {"op": variant}, random_inputs(network, 1, rng), rng).artifact
    return data, HEADER + struct.unpack_from("<Q", data, 24)[0]


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


def test_a_sum_that_could_exceed_32_bits_is_refused() -> None:
    nodes = (Node("v", Input(), (), (70000,)), Node("op", Linear(), ("v",), (1,)))
    network = Network(nodes, ("op",))
    refused(pack(network, lambda layer: replace(layer, levels=layer.levels * np.int8(127))), "exceed 32 bits")
    assert survives(pack(network))
