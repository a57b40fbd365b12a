"""Artifacts that are damaged or break the rules, and what the reader makes of them."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from bitplan.encodings import EncodedLayer
from bitplan.errors import FileFormatError
from bitplan.formats import Range
from bitplan.kernels import Runtime, artifact
from bitplan.kernels.read_artifact import read_artifact
from bitplan.kernels.repeats import compressed, expanded
from bitplan.network import (
    RELU,
    Add,
    AveragePool,
    Concat,
    Conv2d,
    Input,
    Linear,
    MaxPool,
    Mean,
    Network,
    Op,
    Pad,
    Permute,
    Reshape,
    ScaleShift,
    Shape,
    Slice,
    Softmax,
)
from bitplan.policies.variants import LOW
from bitplan.variant import FLOAT32, U1, U2, U4, U8, Variant

from .networks import make_case, network_of, random_inputs

HEADER = 112
INT8, TERNARY, APB = Variant("int8"), Variant("ternary"), Variant.parse("apb:kept=0.04")
XOR = Variant.parse("xor:bits=0.5")
STORED_STRUCTURE = 96
"""Where the header has the bytes of the compressed structure; before it, those of the structure."""
NODE_RECORD, WEIGHT_RECORD, RANGE = 11, 10, 5


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


def structure(data: bytes) -> bytes:
    """The structure, expanded."""
    size, stored = struct.unpack_from("<II", data, STORED_STRUCTURE - 4)
    return expanded(data[HEADER : HEADER + stored], size)


def with_structure(data: bytes, new: bytes) -> bytes:
    """The same file with another structure."""
    stored, packed = struct.unpack_from("<I", data, STORED_STRUCTURE)[0], compressed(new)
    graph = struct.unpack_from("<Q", data, 24)[0] + len(packed) - stored
    data = data[:HEADER] + packed + data[HEADER + stored :]
    data = data[:16] + struct.pack("<QQ", len(data), graph) + data[32:]
    return repaired(
        data[: STORED_STRUCTURE - 4] + struct.pack("<II", len(new), len(packed)) + data[STORED_STRUCTURE + 4 :]
    )


def restructured(data: bytes, at: int, layout: str, *values: object) -> bytes:
    """The same with these values at this place of the structure."""
    found, new = structure(data), struct.pack("<" + layout, *values)
    return with_structure(data, found[:at] + new + found[at + len(new) :])


def record_of(data: bytes, name: str) -> int:
    """Where a node's record begins; a layer's weight record lies NODE_RECORD bytes behind."""
    at = HEADER + struct.unpack_from("<I", data, STORED_STRUCTURE)[0]
    contents = read_artifact(data)
    for node in contents.network:
        if node.name == name:
            break
        at += NODE_RECORD
        if node.name in contents.layers:
            low = contents.layers[node.name].variant.activation in LOW
            at += WEIGHT_RECORD + (RANGE if low else 0)
    return at


def weight_record_of(data: bytes) -> int:
    """Where the weight record of the layer `op` begins."""
    return record_of(data, "op") + NODE_RECORD


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


def one_layer(variant: Variant, shape: Shape = (20, 6, 6)) -> tuple[bytes, int]:
    """An artifact of one 1x1 convolution, and where its packed weights begin."""
    rng = np.random.default_rng(3)
    network = network_of([("x", Input(), (), (30, 6, 6)), ("op", Conv2d((1, 1)), ("x",), shape)], ["op"])
    data = make_case(network, {"op": variant}, random_inputs(network, 1, rng), rng).artifact
    return data, HEADER + struct.unpack_from("<Q", data, 24)[0]
