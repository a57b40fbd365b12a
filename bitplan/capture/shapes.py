"""Operations that move or join elements, and those that do nothing in eval mode."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import prod
from typing import Any

import torch
from torch import Tensor

from bitplan.capture.call import Call, Expanded
from bitplan.capture.draft import DraftNode
from bitplan.network import Concat, Pad, Permute, Reshape, Slice


def reshape(call: Call) -> DraftNode:
    x = call.node()
    if prod(call.shape) != prod(x.shape):
        call.fail("moves elements from image to image", "write x.flatten(1) or x.view(x.size(0), -1)")
    return call.add(Reshape(), [x], name=call.default_name(call.operation.strip("_")))


def _permute(call: Call, x: DraftNode, order: Sequence[int]) -> DraftNode:
    """`order` counts the batch."""
    order = [axis % (len(x.shape) + 1) for axis in order]
    if order[0] != 0:
        call.fail("moves the batch axis", "keep the batch as the first axis")
    moved = [axis for axis in order[1:] if x.shape[axis - 1] > 1]
    if all(a < b for a, b in pairwise(moved)):
        return call.add(Reshape(), [x], name=call.default_name("reshape"))
    return call.add(Permute(tuple(axis - 1 for axis in order[1:])), [x])


def permute(call: Call) -> DraftNode:
    return _permute(call, call.node(), call["dims"])


def transpose(call: Call) -> DraftNode:
    x = call.node()
    order = list(range(len(x.shape) + 1))
    a, b = call["dim0"], call["dim1"]
    order[a], order[b] = order[b], order[a]
    return _permute(call, x, order)


def expand(call: Call) -> DraftNode | Expanded:
    x = call.node()
    if call.shape == x.shape:
        return x
    if len(x.shape) != 3 or call.shape != (x.shape[0], *call.shape[1:]) or x.shape[1:] != (1, 1):
        call.fail(f"repeats {x.shape} to {call.shape}", "only (C, 1, 1) can be repeated over height and width")
    return Expanded(x, call.shape)


def _sliced(call: Call, x: DraftNode, axis: int, start: int, stop: int, step: int = 1) -> DraftNode:
    """Elements start:stop:step along one axis, all of the others."""
    ranges = [(0, size, 1) for size in x.shape]
    ranges[axis] = (start, stop, step)
    size = len(range(start, stop, step))
    if not size:
        call.fail("takes nothing")
    return call.add(Slice(tuple(ranges)), [x], (*x.shape[:axis], size, *x.shape[axis + 1 :]))


def slice_(call: Call) -> DraftNode:
    x, dim = call.node(), int(call["dim"])
    if dim in (0, -1 - len(x.shape)):
        if call["start"] in (None, 0) and (call["end"] is None or call["end"] > 10**9) and call["step"] == 1:
            return x
        call.fail("takes some images of the batch", "every image must be computed by itself")
    axis = call.axis(x, dim)
    start, stop, step = slice(call["start"], call["end"], int(call["step"])).indices(x.shape[axis])
    return _sliced(call, x, axis, start, stop, step)


def select(call: Call) -> DraftNode:
    x = call.node()
    axis = call.axis(x, int(call["dim"]))
    index = int(call["index"]) % x.shape[axis]
    return call.add(Reshape(), [_sliced(call, x, axis, index, index + 1)], name=call.default_name("reshape"))


def split(call: Call) -> list[DraftNode]:
    x = call.node()
    axis = call.axis(x, int(call["dim"]))
    sizes = call.arguments.get("split_sizes", call.arguments.get("split_size"))
    if isinstance(sizes, int):
        sizes = [min(sizes, x.shape[axis] - start) for start in range(0, x.shape[axis], sizes)]
    assert isinstance(sizes, Sequence)
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    return [_sliced(call, x, axis, start, start + size) for start, size in zip(starts, sizes, strict=True)]


def unbind(call: Call) -> list[DraftNode]:
    x = call.node()
    axis = call.axis(x, int(call["dim"]))
    shape = x.shape[:axis] + x.shape[axis + 1 :]
    pieces = [_sliced(call, x, axis, i, i + 1) for i in range(x.shape[axis])]
    return [call.add(Reshape(), [piece], shape, name=call.default_name("reshape")) for piece in pieces]


def concat(call: Call) -> DraftNode:
    tensors = list(call["tensors"])
    nodes = [value for value in tensors if isinstance(value, DraftNode)]
    if len(nodes) + sum(isinstance(value, Tensor) for value in tensors) != len(tensors):
        call.fail("joins an expanded value", "expand in front of an add or a mul only")
    rank = len(nodes[0].shape)
    if call.axis(nodes[0], int(call["dim"])) != 0:
        call.fail(f"joins along axis {call['dim']}", "join along the channels (axis 1)")
    if len(nodes) < len(tensors):
        return _pad_channels(call, tensors, nodes)
    if rank in (1, 3):
        return call.add(Concat(), nodes)
    flat = [call.add(Reshape(), [n], (prod(n.shape),), name=call.default_name("flatten")) for n in nodes]
    joined = call.add(Concat(), flat, (prod(call.shape),))
    return call.add(Reshape(), [joined], name=call.default_name("reshape"))


def _pad_channels(call: Call, tensors: list[DraftNode | Tensor], nodes: list[DraftNode]) -> DraftNode:
    """Constants joined to one image are padding of its channels (zero channels of a parameter-free shortcut)."""
    constants = [value for value in tensors if isinstance(value, Tensor)]
    fill = float(constants[0].reshape(-1)[0])
    uniform = all(bool((value == fill).all()) for value in constants)
    if len(nodes) != 1 or not uniform or len(nodes[0].shape) != 3:
        call.fail("joins constants to values", "join values only, or one image with channels of zeros")
    position = next(index for index, value in enumerate(tensors) if value is nodes[0])
    before = sum(int(value.shape[1]) for value in tensors[:position])
    after = sum(int(value.shape[1]) for value in tensors[position + 1 :])
    return call.add(Pad((0, 0, 0, 0), (before, after), fill), nodes)


def channel_shuffle(call: Call) -> DraftNode:
    x, groups = call.image(), int(call["groups"])
    channels, height, width = x.shape
    split_shape = (groups, channels // groups, height, width)
    name = call.default_name("channel_shuffle")
    grouped = call.add(Reshape(), [x], split_shape, name=f"{name}.split")
    swapped = call.add(Permute((1, 0, 2, 3)), [grouped], (channels // groups, groups, height, width), name=name)
    return call.add(Reshape(), [swapped], name=f"{name}.join")


def unchanged(call: Call) -> DraftNode | Expanded:
    """Dropout in eval mode, copies and views of everything."""
    if call.arguments.get("train"):
        call.fail("drops at random", "the module must not force dropout in eval mode (training=self.training)")
    if call.arguments.get("dtype") not in (None, torch.float32):
        call.fail(f"converts to {call['dtype']}", "keep the network in float32")
    value = call.arguments["input" if "input" in call.arguments else "self"]
    return value if isinstance(value, Expanded) else call.node("input" if "input" in call.arguments else "self")


def constant_like(value: float | None) -> Callable[[Call], Tensor]:
    """zeros_like and friends: a constant of the batch it was traced with, equal for all images."""

    def make(call: Call) -> Tensor:
        number = float(call["fill_value"]) if value is None else value
        size = call.arguments.get("size")
        return torch.full(tuple(size) if size is not None else (call.batch, *call.shape), number)

    return make


SHAPES: dict[str, Callable[[Call], Any]] = {
    **dict.fromkeys(("view", "reshape", "_unsafe_view", "flatten", "unflatten", "squeeze", "unsqueeze"), reshape),
    "permute": permute,
    "transpose": transpose,
    "expand": expand,
    "slice": slice_,
    "select": select,
    "split": split,
    "split_with_sizes": split,
    "unbind": unbind,
    "cat": concat,
    "channel_shuffle": channel_shuffle,
    "native_channel_shuffle": channel_shuffle,
    **dict.fromkeys(
        ("dropout", "feature_dropout", "contiguous", "clone", "alias", "detach", "to", "_to_copy"), unchanged
    ),
    "zeros_like": constant_like(0.0),
    "ones_like": constant_like(1.0),
    "new_zeros": constant_like(0.0),
    "new_ones": constant_like(1.0),
    "full_like": constant_like(None),
    "new_full": constant_like(None),
}
