"""What ONNX's operations compute where torch has no single call for them. Sizes are tuples, or integer arrays that were
computed from a shape while the network runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

Sizes = Sequence[int] | NDArray[np.int64]


def shape(x: Tensor, start: int = 0, end: int | None = None) -> NDArray[np.int64]:
    return np.array([int(size) for size in x.shape][start:end], np.int64)


class SizeNode:
    """One node that computes with sizes, by ONNX's reference; copied as the node's own bytes."""

    def __init__(self, model: bytes) -> None:
        from onnx import load_from_string
        from onnx.reference import ReferenceEvaluator

        self.model, self.evaluator = model, ReferenceEvaluator(load_from_string(model))

    def __reduce__(self) -> tuple[type[SizeNode], tuple[bytes]]:
        return SizeNode, (self.model,)

    def run(self, *inputs: NDArray[Any]) -> list[Any]:
        """All outputs of the node for its inputs, each name once."""
        return list(self.evaluator.run(None, dict(zip(self.evaluator.input_names, inputs, strict=True))))


def evaluate(node: SizeNode, *inputs: NDArray[Any]) -> Any:
    return node.run(*inputs)[0]


def reshape(x: Tensor, sizes: Sizes, allow_zero: bool, free_batch: bool) -> Tensor:
    """Zeros stand for the size that x has there. `free_batch`: the first size is the batch, whatever it says."""
    wanted = [int(size) for size in sizes]
    if not allow_zero:
        wanted = [x.shape[i] if size == 0 else size for i, size in enumerate(wanted)]
    if free_batch:
        wanted[0] = x.shape[0]
    return x.reshape(wanted)


def expand(x: Tensor, sizes: Sizes, free_batch: bool) -> Tensor:
    wanted = [int(size) for size in sizes]
    if free_batch:
        wanted[0] = x.shape[0]
    return x.expand(np.broadcast_shapes(tuple(x.shape), tuple(wanted)))


def flatten(x: Tensor, axis: int) -> Tensor:
    return (
        x.flatten(axis + (axis < 0) * x.ndim)
        if axis in (1, 1 - x.ndim)
        else x.reshape(int(np.prod(x.shape[:axis])), -1)
    )


def unsqueeze(x: Tensor, axes: Sizes) -> Tensor:
    rank = x.ndim + len(axes)
    for axis in sorted(int(axis) % rank for axis in axes):
        x = x.unsqueeze(axis)
    return x


def squeeze(x: Tensor, axes: Sizes | None) -> Tensor:
    return x.squeeze() if axes is None else x.squeeze([int(axis) for axis in axes])


def slice_(x: Tensor, starts: Sizes, ends: Sizes, axes: Sizes | None, steps: Sizes | None) -> Tensor:
    where = range(len(starts)) if axes is None else [int(axis) for axis in axes]
    by = [1] * len(starts) if steps is None else [int(step) for step in steps]
    picked = [slice(None)] * x.ndim
    for axis, start, end, step in zip(where, starts, ends, by, strict=True):
        picked[axis] = slice(int(start), int(end), step)
    return x[tuple(picked)]


def gather(x: Tensor, index: NDArray[np.int64] | int, axis: int) -> Tensor:
    if np.ndim(index) == 0:
        return x.select(axis, int(index))
    indices = np.asarray(index)
    if indices.ndim == 1 and len(indices) and np.array_equal(indices, np.arange(indices[0], indices[0] + len(indices))):
        return x.narrow(axis, int(indices[0]), len(indices))
    rows = x.index_select(axis, torch.from_numpy(indices.reshape(-1)))
    axis %= x.ndim
    return rows.reshape(*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])


def pad(x: Tensor, pads: Sizes, value: float, mode: str, axes: Sizes | None) -> Tensor:
    """`pads`: of all axes (or those named) the entries before, then those behind."""
    half = len(pads) // 2
    where = list(range(x.ndim)) if axes is None else [int(axis) % x.ndim for axis in axes]
    before, behind = [0] * x.ndim, [0] * x.ndim
    for place, axis in enumerate(where):
        before[axis], behind[axis] = int(pads[place]), int(pads[half + place])
    pairs = [number for axis in reversed(range(x.ndim)) for number in (before[axis], behind[axis])]
    while mode != "constant" and len(pairs) > 4 and pairs[-2:] == [0, 0]:
        pairs = pairs[:-2]
    return F.pad(x, pairs, mode, value) if mode == "constant" else F.pad(x, pairs, mode)


def same_padding(x: Tensor, kernel: Sizes, stride: Sizes, dilation: Sizes, lower: bool) -> tuple[int, ...]:
    """What `auto_pad` SAME pads: (top, bottom, left, right) that keep ceil(size / stride)."""
    found: list[int] = []
    for size, k, s, d in zip(x.shape[2:], kernel, stride, dilation, strict=True):
        total = max(0, (-(-size // s) - 1) * s + (k - 1) * d + 1 - size)
        found += [total - total // 2, total // 2] if lower else [total // 2, total - total // 2]
    return tuple(int(number) for number in found)


def padded(x: Tensor, pads: Sizes, value: float = 0.0) -> Tensor:
    """`pads`: (top, bottom, left, right)."""
    top, bottom, left, right = (int(number) for number in pads)
    return F.pad(x, (left, right, top, bottom), value=value) if top or bottom or left or right else x


def padded_same(x: Tensor, kernel: Sizes, stride: Sizes, dilation: Sizes, lower: bool, value: float = 0.0) -> Tensor:
    return padded(x, same_padding(x, kernel, stride, dilation, lower), value)


def max_pool(x: Tensor, kernel: Sizes, stride: Sizes, padding: Sizes, dilation: Sizes, ceil: bool) -> Tensor:
    """Symmetric padding (height, width) of at most half a kernel, as torch has it."""
    return F.max_pool2d(x, tuple(kernel), tuple(stride), tuple(padding), tuple(dilation), ceil)


def average_pool(x: Tensor, kernel: Sizes, stride: Sizes, padding: Sizes, ceil: bool, count_padding: bool) -> Tensor:
    return F.avg_pool2d(x, tuple(kernel), tuple(stride), tuple(padding), ceil, count_padding)


def reduce(x: Tensor, kind: str, axes: Sizes | None, keep: bool, nothing: bool) -> Tensor:
    """`nothing`: whether no axes mean no reduction (else all)."""
    if (axes is None or len(axes) == 0) and nothing:
        return x
    where = [int(axis) for axis in axes] if axes is not None and len(axes) else list(range(x.ndim))
    return getattr(torch, kind)(x, where, keep)  # type: ignore[no-any-return]


def softmax(x: Tensor, axis: int, log: bool, flattened: bool) -> Tensor:
    """`flattened` (opsets before 13): over all axes from `axis` on."""
    function = torch.log_softmax if log else torch.softmax
    if flattened and axis % x.ndim != x.ndim - 1 and x[0].numel() != x.shape[axis]:
        return function(x.flatten(axis), -1).reshape(x.shape)
    return function(x, axis)


def gelu_by_tanh(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


def hard_sigmoid(x: Tensor, alpha: float, beta: float) -> Tensor:
    if abs(alpha - 1 / 6) < 1e-6 and beta == 0.5:
        return F.hardsigmoid(x)
    return (x * alpha + beta).clamp(0, 1)


def clip(x: Tensor, low: float | None, high: float | None) -> Tensor:
    if low is None and high is None:
        return x
    return F.relu(x) if low == 0 and high is None else torch.clamp(x, low, high)


def depth_to_space(x: Tensor, block: int, columns_first: bool) -> Tensor:
    if columns_first:
        return F.pixel_shuffle(x, block)
    n, c, h, w = x.shape
    parts = x.reshape(n, block, block, c // block**2, h, w).permute(0, 3, 4, 1, 5, 2)
    return parts.reshape(n, c // block**2, h * block, w * block)


def split(x: Tensor, sizes: Sizes | None, parts: int, axis: int) -> tuple[Tensor, ...]:
    if sizes is None:
        return torch.split(x, -(-x.shape[axis] // parts), axis)
    return torch.split(x, [int(size) for size in sizes], axis)
