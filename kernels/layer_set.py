"""The layers of an artifact, called one by one: what drop-in modules (torch_modules.py) run."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bitplan.errors import FileFormatError
from bitplan.kernels.compiled import _runtime
from bitplan.network import Conv2d, Linear, Shape, WeightShape


@dataclass(frozen=True, slots=True)
class LayerInfo:
    """One layer: its place in the set, what it computes, its weight, the shape of input that it was planned for
    (without the batch), and its compute kernel."""

    number: int
    op: Conv2d | Linear
    weight: WeightShape
    input_shape: Shape
    kernel: str


class LayerSet:
    """A loaded artifact whose layers each read an input of their own. Calls from several threads at once are safe; the
    interpreter lock is released meanwhile. Batch and size of images are free: the first call with another shape
    prepares the layer for it."""

    def __init__(self, data: bytes, threads: int = 1, isa: str | None = None) -> None:
        """Raises FileFormatError (damaged or foreign, or a network whose nodes feed each other), UsageError (threads,
        isa) and MemoryError."""
        self.compiled = _runtime.LayerSet(data, max(int(threads), 0), isa or "")
        self.layers: dict[str, LayerInfo] = {}
        """By name."""
        for number, (name, op, weight, groups, shape, kernel, *window) in enumerate(self.compiled.layers):
            out, group_inputs, *size = weight
            info = WeightShape(out, group_inputs * groups, (size[0], size[1]), groups)
            self.layers[name] = LayerInfo(number, _operation(op, info, *window), info, tuple(shape), kernel)

    @staticmethod
    def load(path: str | os.PathLike[str], threads: int = 1, isa: str | None = None) -> LayerSet:
        """From a file. Raises OSError besides."""
        data = Path(path).read_bytes()
        try:
            return LayerSet(data, threads, isa)
        except FileFormatError as error:
            raise FileFormatError(
                f"{os.fspath(path)}: {error}; copy the file again, write it anew (optimize realise), or use the bitplan that "
                "wrote it"
            ) from None

    def run(self, number: int, array: NDArray[np.float32], interleaved: bool = False) -> NDArray[np.float32]:
        """The value of a layer for contiguous float32 [N, ...]. Images are [N, C, H, W] or, `interleaved`,
        [N, H, W, C]; the result always has their channels last. Raises DataError where the shape does not fit."""
        return self.compiled.run(number, array, interleaved)

    @property
    def weight_bytes(self) -> int:
        """Bytes of the weights in memory, for each shape that a layer is prepared for."""
        return self.compiled.weight_bytes

    @property
    def isa(self) -> str:
        """The ISA level whose kernels run."""
        return self.compiled.isa

    @property
    def threads(self) -> int:
        return self.compiled.threads

    @threads.setter
    def threads(self, threads: int) -> None:
        self.compiled.threads = max(int(threads), 0)  # the compiled side refuses 0 with the rule

    def __reduce__(self) -> tuple[Callable[..., LayerSet], tuple[bytes, int]]:
        return LayerSet, (self.compiled.data, self.threads)  # another machine chooses an ISA level of its own


def _operation(
    op: str, weight: WeightShape, stride: list[int], padding: list[int], dilation: list[int]
) -> Conv2d | Linear:
    if op == "linear":
        return Linear()
    top, bottom, left, right = padding
    return Conv2d(
        weight.kernel, (stride[0], stride[1]), (top, bottom, left, right), (dilation[0], dilation[1]), weight.groups
    )
