"""The writer of artifacts (layout: FORMAT.md), and their size before they are written."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from math import inf
from pathlib import Path

import numpy as np

from bitplan.atomic_file import write_atomically
from bitplan.encodings import EncodedLayer, encoding_of
from bitplan.errors import UsageError
from bitplan.formats import Formats, Range, derive_formats
from bitplan.kernels.arena import Arena, plan_arena
from bitplan.network import (
    OPS,
    Activation,
    AveragePool,
    Conv2d,
    Linear,
    MaxPool,
    Mean,
    Network,
    Node,
    Pad,
    Permute,
    ScaleShift,
    Slice,
    Weights,
)
from bitplan.variant import F32, U8, Variant

MAGIC = b"BITPLAN\0"
VERSION = 1
HEADER_BYTES = 112
ABSENT = 0xFFFFFFFF
FORMAT_BITS = {F32: 1, U8: 2}


def artifact_bytes(network: Network, variants: Mapping[str, Variant]) -> int:
    """The exact size of the artifact of a policy, in bytes."""
    layers = sum(layer_bytes(network, node, variants[node.name]) for node in network.layers)
    return constant_bytes(network) + layers


def layer_bytes(network: Network, node: Node, variant: Variant) -> int:
    """The bytes that depend on the choice of one layer's variant."""
    return encoding_of(variant).size_bytes(network.weight_shape(node), variant)


def constant_bytes(network: Network) -> int:
    """The bytes that do not depend on any choice: header, graph, scales and shifts of separate batch norms."""
    shifts = sum(8 * node.shape[_channel_axis(node)] for node in network if isinstance(node.op, ScaleShift))
    return HEADER_BYTES + _graph_bytes(network) + shifts


def write_artifact(
    path: Path,
    network: Network,
    weights: Weights,
    layers: Mapping[str, EncodedLayer],
    ranges: Mapping[str, Range],
    *,
    policy_hash: bytes = bytes(32),
    planned_batch: int = 1,
) -> int:
    """Writes the artifact atomically and returns its size in bytes; `ranges` covers every value kept in u8.
    Raises UsageError for a missing range and OSError (with the path) when the file cannot be written."""
    data = pack_artifact(network, weights, layers, ranges, policy_hash=policy_hash, planned_batch=planned_batch)
    write_atomically(path, data)
    return len(data)


def pack_artifact(
    network: Network,
    weights: Weights,
    layers: Mapping[str, EncodedLayer],
    ranges: Mapping[str, Range],
    *,
    policy_hash: bytes = bytes(32),
    planned_batch: int = 1,
) -> bytes:
    """The artifact as bytes; see `write_artifact`. `weights` holds scale and shift of separate batch norms."""
    formats = derive_formats(network, {name: layer.variant for name, layer in layers.items()})
    arena = plan_arena(network, formats)
    numbers = {node.name: number for number, node in enumerate(network)}
    graph, body = bytearray(_preprocessing(network)), bytearray()
    for node in network:
        if U8 in formats.kept[node.name] and node.name not in ranges:
            raise UsageError(f"value {node.name!r} is kept in 8 bits but has no calibrated range; calibrate first")
        graph += _node(node, numbers, formats, arena, ranges.get(node.name, Range(1.0, 0)))
        if isinstance(node.op, Conv2d | Linear):
            layer = layers[node.name]
            packed = encoding_of(layer.variant).pack(layer)
            graph += struct.pack(
                "<BIQQ", encoding_of(layer.variant).number, len(layer.kept_positions), len(body), len(packed)
            )
            body += packed
        elif isinstance(node.op, ScaleShift):
            graph += struct.pack("<Q", len(body))
            body += np.asarray(weights[f"{node.name}.scale"], "<f4").tobytes()
            body += np.asarray(weights[f"{node.name}.shift"], "<f4").tobytes()
    for name in network.outputs:
        graph += struct.pack("<H", numbers[name])
    header = MAGIC + struct.pack(
        "<IIQQQQIHH32sI16x",
        VERSION,
        HEADER_BYTES,
        HEADER_BYTES + len(graph) + len(body),
        len(graph),
        len(body),
        arena.size,
        planned_batch,
        len(network.nodes),
        len(network.outputs),
        policy_hash,
        zlib.crc32(bytes(graph + body)),
    )
    return header + struct.pack("<I", zlib.crc32(header)) + bytes(graph + body)


def _channel_axis(node: Node) -> int:
    return 0 if len(node.shape) == 3 else -1


def _preprocessing(network: Network) -> bytes:
    p = network.preprocessing
    pairs = [value for pair in zip(p.mean, p.std, strict=True) for value in pair]
    return struct.pack(f"<HHH{len(pairs)}f", p.resize, p.crop, len(p.mean), *pairs)


def _node(node: Node, numbers: Mapping[str, int], formats: Formats, arena: Arena, held: Range) -> bytes:
    activation = node.activation
    low, high = (activation.low, activation.high) if activation.kind == "clamp" else (-inf, inf)
    read = formats.read.get(node.name)
    name = node.name.encode()
    data = struct.pack(
        "<BBffBBfBII",
        OPS.index(type(node.op)),
        Activation.KINDS.index(activation.kind),
        low,
        high,
        sum(FORMAT_BITS[form] for form in formats.kept[node.name]),
        FORMAT_BITS[read] if read else 0,
        held.scale,
        held.zero_point,
        arena.offsets.get((node.name, F32), ABSENT),
        arena.offsets.get((node.name, U8), ABSENT),
    )
    data += struct.pack(f"<B{len(node.shape)}I", len(node.shape), *node.shape)
    data += struct.pack(f"<B{len(node.inputs)}H", len(node.inputs), *(numbers[i] for i in node.inputs))
    return data + struct.pack("<H", len(name)) + name + _fields(node)


def _fields(node: Node) -> bytes:
    match node.op:
        case Conv2d(kernel, stride, padding, dilation, groups, _):
            return struct.pack("<10HI", *kernel, *stride, *padding, *dilation, groups)
        case MaxPool(kernel, stride, padding, dilation):
            return struct.pack("<10H", *kernel, *stride, *padding, *dilation)
        case AveragePool(kernel, stride, padding, count_padding):
            return struct.pack("<8HB", *kernel, *stride, *padding, count_padding)
        case Mean(keep):
            return struct.pack("<B", keep)
        case Pad(padding, channels, value):
            return struct.pack("<6Hf", *padding, *channels, value)
        case Slice(ranges):
            return struct.pack(f"<{3 * len(ranges)}I", *(number for triple in ranges for number in triple))
        case Permute(order):
            return bytes(order)
        case _:
            return b""


def _graph_bytes(network: Network) -> int:
    """Bytes of preprocessing, nodes and outputs; the records' sizes do not depend on formats or variants."""
    numbers = {node.name: 0 for node in network}
    nothing = Formats({name: frozenset() for name in numbers}, {})
    size = len(_preprocessing(network)) + 2 * len(network.outputs)
    for node in network:
        size += len(_node(node, numbers, nothing, Arena({}, 0), Range(1.0, 0)))
        size += 21 if isinstance(node.op, Conv2d | Linear) else 8 if isinstance(node.op, ScaleShift) else 0
    return size
