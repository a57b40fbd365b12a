"""The writer of artifacts (layout: FORMAT.md), and their size before they are written."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from bitplan.atomic_file import write_atomically
from bitplan.compute import KERNELS, kernels_for, supports_format
from bitplan.encodings import EncodedLayer, encoding_of
from bitplan.errors import UsageError
from bitplan.formats import Formats, Range, Ranges, derive_formats, in_order, top_code
from bitplan.kernels.arena import plan_arena
from bitplan.kernels.repeats import compressed
from bitplan.kernels.structure import structure_of
from bitplan.network import SAME_RANGE, Conv2d, Linear, Network, Node, ScaleShift, Weights
from bitplan.policies.variants import LOW, RANGE_BYTES, stored_bytes
from bitplan.variant import FORMATS, U1, U8, Variant

MAGIC = b"BITPLAN\0"
VERSION = 4
HEADER_BYTES = 112
HEADER = "<IIQQQQIHH32sIII8x"
"""Behind MAGIC and before the header's own checksum."""
NODE_RECORD = "<BBI"
"""Formats kept, the format read, the place in the arena; the range in u8 follows."""
RANGE = "<fB"
WEIGHT_RECORD = "<BBII"
"""Encoding, kernel, number, bytes; the range of what is read in u4, u2 or u1 follows."""
NO_RANGE = Range(1.0, 0)
"""What stands for the range in u8 of a value that is not kept in it."""


def artifact_bytes(network: Network, variants: Mapping[str, Variant]) -> int:
    """The exact size of the artifact of a policy, in bytes."""
    layers = sum(layer_bytes(network, node, variants[node.name]) for node in network.layers)
    return constant_bytes(network) + layers


def stored_policy_hash(artifact: bytes) -> bytes | None:
    """The hash of the policy that an artifact says it carries out; None for what has no undamaged header of this version."""
    header = artifact[:HEADER_BYTES]
    if len(header) < HEADER_BYTES or not header.startswith(MAGIC):
        return None
    if zlib.crc32(header[:-4]) != int.from_bytes(header[-4:], "little"):
        return None
    version, *_, policy_hash, _, _, _ = struct.unpack_from(HEADER, header, len(MAGIC))
    return bytes(policy_hash) if version == VERSION else None


def layer_bytes(network: Network, node: Node, variant: Variant) -> int:
    """The bytes that depend on the choice of one layer's variant."""
    return stored_bytes(network.weight_shape(node), variant)


def constant_bytes(network: Network) -> int:
    """The bytes that do not depend on any choice: header, structure, records, scales and shifts of separate batch norms."""
    shifts = sum(8 * node.shape[_channel_axis(node)] for node in network if isinstance(node.op, ScaleShift))
    nodes = (struct.calcsize(NODE_RECORD) + RANGE_BYTES) * len(network.nodes)
    layers = struct.calcsize(WEIGHT_RECORD) * len(network.layers)
    return HEADER_BYTES + len(compressed(structure_of(network))) + nodes + layers + shifts


def layer_kernel(layer: str, variant: Variant, asked: str | None = None) -> str:
    """The compute kernel of a layer: the one asked for, or the first that can run the variant.
    Raises UsageError, naming the layer, for one that cannot."""
    possible = kernels_for(variant)
    if asked and asked not in possible:
        raise UsageError(
            f"layer {layer!r} as {variant} cannot run on the kernel {asked!r}; name one of {', '.join(possible)}, or none"
        )
    return asked or possible[0]


def write_artifact(
    path: Path,
    network: Network,
    weights: Weights,
    layers: Mapping[str, EncodedLayer],
    ranges: Ranges,
    *,
    kernels: Mapping[str, str] | None = None,
    policy_hash: bytes = bytes(32),
    planned_batch: int = 1,
) -> int:
    """Writes the artifact atomically and returns its size in bytes; see `pack_artifact`.
    Raises OSError (with the path) when the file cannot be written."""
    data = pack_artifact(
        network, weights, layers, ranges, kernels=kernels, policy_hash=policy_hash, planned_batch=planned_batch
    )
    write_atomically(path, data)
    return len(data)


def pack_artifact(
    network: Network,
    weights: Weights,
    layers: Mapping[str, EncodedLayer],
    ranges: Ranges,
    *,
    kernels: Mapping[str, str] | None = None,
    policy_hash: bytes = bytes(32),
    planned_batch: int = 1,
) -> bytes:
    """The artifact as bytes. `weights` holds scale and shift of separate batch norms; `ranges` those of every value in
    all formats of codes that it is kept in (in u8, an operation of SAME_RANGE without one takes that of its input);
    `kernels` the compute kernels of layers (where one is not named, the first that can run it).

    Raises UsageError, naming the value or layer, for a range that is missing or that its format cannot have, a kernel
    that cannot run its layer, and a layer that cannot read its format."""
    formats = derive_formats(network, {name: layer.variant for name, layer in layers.items()})
    arena = plan_arena(network, formats)
    structure = structure_of(network)
    graph, body = bytearray(compressed(structure)), bytearray()
    stored = len(graph)
    for node in network:
        held = _range(network, node, U8, ranges) if U8 in formats.kept[node.name] else NO_RANGE
        graph += _record(node, formats, arena.offsets[node.name]) + _stored(U8, held)
        if isinstance(node.op, Conv2d | Linear):
            layer = layers[node.name]
            encoding = encoding_of(layer.variant)
            packed, number = encoding.pack(layer), encoding.record_number(layer)
            kernel = KERNELS.index(layer_kernel(node.name, layer.variant, (kernels or {}).get(node.name)))
            if not supports_format(network.weight_shape(node), layer.variant.activation):
                raise UsageError(
                    f"layer {node.name!r} has groups and cannot read {layer.variant.activation}; choose another variant"
                )
            if len(packed) >= 1 << 32:
                raise UsageError(
                    f"layer {node.name!r} as {layer.variant} has {len(packed)} bytes; a file holds less than 4 GiB"
                )
            graph += struct.pack(WEIGHT_RECORD, encoding.number, kernel, number, len(packed))
            if (form := formats.read[node.name]) in LOW:
                graph += _stored(form, _range(network, network.by_name[node.inputs[0]], form, ranges))
            body += packed
        elif isinstance(node.op, ScaleShift):
            body += np.asarray(weights[f"{node.name}.scale"], "<f4").tobytes()
            body += np.asarray(weights[f"{node.name}.shift"], "<f4").tobytes()
    header = MAGIC + struct.pack(
        HEADER,
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
        len(structure),
        stored,
    )
    return header + struct.pack("<I", zlib.crc32(header)) + bytes(graph + body)


def _channel_axis(node: Node) -> int:
    return 0 if len(node.shape) == 3 else -1


def _range(network: Network, node: Node, form: str, ranges: Ranges) -> Range:
    source = node
    while form == U8 and form not in ranges.get(source.name, {}) and isinstance(source.op, SAME_RANGE):
        source = network.by_name[source.inputs[0]]
    held = ranges.get(source.name, {}).get(form)
    if held is None:
        raise UsageError(f"value {node.name!r} is kept in {form} but has no calibrated range for that; calibrate first")
    if held.zero_point > top_code(form) or (form != U1 and held.zero_point % 1):
        raise UsageError(
            f"value {node.name!r} has the zero point {held.zero_point:g} in {form}; the codes of {form} are the whole "
            f"numbers from 0 to {top_code(form)}, calibrate for that format"
        )
    return held


def _record(node: Node, formats: Formats, offset: int) -> bytes:
    read = formats.read.get(node.name)
    kept = sum(1 << FORMATS.index(form) for form in in_order(formats.kept[node.name]))
    return struct.pack(NODE_RECORD, kept, 1 + FORMATS.index(read) if read else 0, offset)


def _stored(form: str, held: Range) -> bytes:
    return struct.pack(RANGE, held.scale, int(2 * held.zero_point if form == U1 else held.zero_point))
