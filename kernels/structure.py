"""What an artifact says of its network whatever the policy: preprocessing, nodes and outputs (layout: FORMAT.md)."""

from __future__ import annotations

import struct

from bitplan.network import OPS, Activation, AveragePool, Conv2d, MaxPool, Mean, Network, Node, Pad, Permute, Slice


def structure_of(network: Network) -> bytes:
    """The structure before it is compressed. Inputs are counted back from their reader, so that alike blocks of a network
    are alike in bytes."""
    numbers = {node.name: number for number, node in enumerate(network)}
    nodes = b"".join(_node(node, [numbers[node.name] - numbers[name] for name in node.inputs]) for node in network)
    outputs = struct.pack(f"<{len(network.outputs)}H", *(numbers[name] for name in network.outputs))
    return _preprocessing(network) + nodes + outputs


def _preprocessing(network: Network) -> bytes:
    p = network.preprocessing
    pairs = [value for pair in zip(p.mean, p.std, strict=True) for value in pair]
    return struct.pack(f"<HHH{len(pairs)}f", p.resize, p.crop, len(p.mean), *pairs)


def _node(node: Node, back: list[int]) -> bytes:
    activation, name = node.activation, node.name.encode()
    data = struct.pack("<BB", OPS.index(type(node.op)), Activation.KINDS.index(activation.kind))
    if activation.kind == "clamp":
        data += struct.pack("<ff", activation.low, activation.high)
    data += struct.pack(f"<B{len(node.shape)}I", len(node.shape), *node.shape)
    data += struct.pack(f"<B{len(back)}H", len(back), *back)
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
