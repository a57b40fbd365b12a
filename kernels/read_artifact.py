"""The reader of artifacts (layout: FORMAT.md) for those who want what is in the file and not to run it."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from bitplan.encodings import ENCODINGS, EncodedLayer, Encoding
from bitplan.encodings.coded import Coded
from bitplan.encodings.even import EvenLevels
from bitplan.encodings.xor import SIXTEENTHS
from bitplan.errors import FileFormatError
from bitplan.formats import Range
from bitplan.kernels.artifact import (
    HEADER,
    HEADER_BYTES,
    MAGIC,
    NODE_RECORD,
    RANGE,
    VERSION,
    WEIGHT_RECORD,
)
from bitplan.kernels.repeats import expanded
from bitplan.network import (
    OPS,
    Activation,
    AveragePool,
    Concat,
    Conv2d,
    Input,
    Linear,
    MaxPool,
    Mean,
    Network,
    Node,
    Pad,
    Permute,
    Preprocessing,
    Reshape,
    ScaleShift,
    Slice,
    Softmax,
    Weights,
    WeightShape,
)
from bitplan.policies.variants import LOW
from bitplan.variant import FORMATS, U1, U8, Variant

ENCODING_BY_NUMBER = {one.number: one for one in ENCODINGS if not isinstance(one, EvenLevels)}
"""But for evenly spaced levels, whose encodings have one number."""


@dataclass(frozen=True)
class Contents:
    """An artifact as what `pack_artifact` was given. Parameters of variants are those that the file tells (a rate may differ
    from the policy's in its last digits)."""

    network: Network
    layers: Mapping[str, EncodedLayer]
    weights: Weights
    ranges: Mapping[str, Mapping[str, Range]]
    policy_hash: bytes
    planned_batch: int


def read_artifact(data: bytes, source: str = "the artifact") -> Contents:
    """Raises FileFormatError for a damaged or foreign file; `source` leads it."""
    try:
        return _Reader(data, source).contents()
    except (struct.error, IndexError, KeyError, ValueError, TypeError) as error:
        raise FileFormatError(f"{source} is damaged: {error}") from error


class _Cursor:
    """Bytes from front to back."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, layout: str) -> tuple[Any, ...]:
        return struct.unpack(layout, self.read(struct.calcsize(layout)))

    def read(self, size: int) -> bytes:
        if size > len(self.data) - self.at:
            raise ValueError(f"it ends at byte {len(self.data)} of a part that needs {self.at + size}")
        self.at += size
        return self.data[self.at - size : self.at]

    def check_end(self) -> None:
        if self.at != len(self.data):
            raise ValueError(f"{len(self.data) - self.at} bytes stand behind the end of a part")


class _Reader:
    def __init__(self, data: bytes, source: str) -> None:
        if len(data) < HEADER_BYTES or not data.startswith(MAGIC):
            raise FileFormatError(f"{source} is not a bitplan artifact")
        fields = struct.unpack_from(HEADER, data, len(MAGIC))
        version, _, size, graph, _, _, batch, nodes, outputs, policy, crc, structure, stored = fields
        if version != VERSION:
            raise FileFormatError(
                f"{source} has version {version}; this bitplan reads {VERSION}: carry its policy out again (optimize realise)"
            )
        if size != len(data) or zlib.crc32(data[HEADER_BYTES:]) != crc:
            raise FileFormatError(f"{source} is damaged: its size or checksum is wrong; copy it again")
        if stored > graph:
            raise FileFormatError(f"{source} is damaged: its structure has {stored} of the graph's {graph} bytes")
        records = HEADER_BYTES + stored
        self.structure = _Cursor(expanded(data[HEADER_BYTES:records], structure))
        self.records = _Cursor(data[records : HEADER_BYTES + graph])
        self.weight_bytes = _Cursor(data[HEADER_BYTES + graph :])
        self.batch, self.count, self.output_count, self.policy = batch, nodes, outputs, policy
        self.nodes: list[Node] = []
        self.ranges: dict[str, dict[str, Range]] = {}
        self.weights: dict[str, Any] = {}
        self.layers: dict[str, EncodedLayer] = {}

    def contents(self) -> Contents:
        preprocessing = self._preprocessing()
        for _ in range(self.count):
            self._node()
        outputs = tuple(self.nodes[number].name for number in self._take(f"{self.output_count}H"))
        for cursor in (self.structure, self.records, self.weight_bytes):
            cursor.check_end()
        network = Network(tuple(self.nodes), outputs, preprocessing)
        return Contents(network, self.layers, self.weights, self.ranges, self.policy, self.batch)

    def _take(self, form: str) -> tuple[Any, ...]:
        return self.structure.take("<" + form)

    def _preprocessing(self) -> Preprocessing:
        resize, crop, channels = self._take("HHH")
        pairs = self._take(f"{2 * channels}f")
        return Preprocessing(pairs[::2], pairs[1::2], resize, crop)

    def _node(self) -> None:
        op, kind = self._take("BB")
        activation = Activation(
            Activation.KINDS[kind], *(self._take("ff") if Activation.KINDS[kind] == "clamp" else ())
        )
        rank = self._take("B")[0]
        shape = self._take(f"{rank}I")
        inputs = tuple(self._earlier(back).name for back in self._take(f"{self._take('B')[0]}H"))
        length = self._take("H")[0]
        name = self._take(f"{length}s")[0].decode()
        node = Node(name, self._op(OPS[op], activation, rank), inputs, shape)
        self.nodes.append(node)
        kept, read, _ = self.records.take(NODE_RECORD)
        if bool(read) != bool(inputs):
            raise ValueError(f"node {name!r} reads format {read} and has {len(inputs)} inputs")
        in_bytes = self._range(U8)
        self.ranges[name] = {U8: in_bytes} if kept >> FORMATS.index(U8) & 1 else {}
        if isinstance(node.op, Conv2d | Linear):
            self._layer(node, FORMATS[read - 1])
        elif isinstance(node.op, ScaleShift):
            self._scale_shift(node)

    def _earlier(self, back: int) -> Node:
        if not 1 <= back <= len(self.nodes):
            raise ValueError(f"node {len(self.nodes)} reads a node {back} before it")
        return self.nodes[-back]

    def _range(self, form: str) -> Range:
        scale, zero_point = self.records.take(RANGE)
        return Range(scale, zero_point / 2 if form == U1 else zero_point)

    def _op(self, kind: type, activation: Activation, rank: int) -> Any:
        if kind is Conv2d:
            kernel, stride, padding, dilation = self._window(10)
            return Conv2d(kernel, stride, padding, dilation, self._take("I")[0], activation)
        if kind is MaxPool:
            return MaxPool(*self._window(10))
        if kind is AveragePool:
            kernel, stride, padding = self._window(8)
            return AveragePool(kernel, stride, padding, bool(self._take("B")[0]))
        if kind is Mean:
            return Mean(bool(self._take("B")[0]))
        if kind is Pad:
            *sizes, value = self._take("6Hf")
            return Pad(tuple(sizes[:4]), tuple(sizes[4:]), value)
        if kind is Slice:
            numbers = self._take(f"{3 * rank}I")
            return Slice(tuple(zip(numbers[::3], numbers[1::3], numbers[2::3], strict=True)))
        if kind is Permute:
            return Permute(self._take(f"{rank}B"))
        return kind() if kind in (Input, Concat, Reshape, Softmax) else kind(activation)

    def _window(self, count: int) -> list[Any]:
        """kernel, stride, padding and (of ten numbers) dilation."""
        n = self._take(f"{count}H")
        return [n[0:2], n[2:4], n[4:8], *([n[8:10]] if count == 10 else [])]

    def _layer(self, node: Node, form: str) -> None:
        number, _, extra, size = self.records.take(WEIGHT_RECORD)
        if form in LOW:
            known, found = self.ranges[node.inputs[0]], self._range(form)
            if known.setdefault(form, found) != found:
                raise ValueError(
                    f"layer {node.name!r} has another range than an earlier one for {node.inputs[0]!r} in {form}"
                )
        source = next(n for n in self.nodes if n.name == node.inputs[0]).shape
        if isinstance(node.op, Conv2d):
            shape = WeightShape(node.shape[0], source[0], node.op.kernel, node.op.groups)
        else:
            shape = WeightShape(node.shape[-1], source[-1])
        stored = self.weight_bytes.read(size)
        if number == EvenLevels.number:
            self.layers[node.name] = _even(stored, shape, form, extra)
            return
        encoding = ENCODING_BY_NUMBER[number]
        variant = Variant(encoding.name, form, _parameters(encoding, shape, extra, size))
        self.layers[node.name] = encoding.unpack(stored, shape, variant)

    def _scale_shift(self, node: Node) -> None:
        channels = node.shape[0] if len(node.shape) == 3 else node.shape[-1]
        numbers = np.frombuffer(self.weight_bytes.read(8 * channels), "<f4").astype(np.float32)
        self.weights[f"{node.name}.scale"], self.weights[f"{node.name}.shift"] = numbers[:channels], numbers[channels:]


def _even(stored: bytes, shape: WeightShape, form: str, bits: int) -> EncodedLayer:
    """A layer of evenly spaced levels, by the encoding whose levels they are."""
    for encoding in ENCODINGS:
        if isinstance(encoding, EvenLevels) and encoding.bits == bits:
            with suppress(FileFormatError):  # its levels begin elsewhere
                return encoding.unpack(stored, shape, Variant(encoding.name, form))
    raise ValueError(f"no encoding has a layer's levels of {bits} bits; was it written with an encoding of your own?")


def _parameters(encoding: Encoding, shape: WeightShape, extra: int, size: int) -> tuple[tuple[str, float], ...]:
    """What a record tells of its variant's parameter."""
    if "kept" in encoding.parameters:
        return (("kept", extra / shape.count),)
    if encoding.name == "xor":
        return (("bits", extra / SIXTEENTHS),)
    if isinstance(encoding, Coded):
        capacity = size - encoding.numbers.size_bytes(shape.out_channels)
        return (("bits", 8 * (capacity - 0.5) / shape.count),)  # half a byte less: rounding up gives it again
    return ()
