"""An ONNX graph while it is written: nodes, constants and names that are not taken."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper


class Graph:
    def __init__(self, reserved: Sequence[str]) -> None:
        """`reserved`: names of values that must be called so in the end."""
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self._names = set(reserved)

    def add(self, kind: str, inputs: Sequence[str], name: str, output: str = "", **attributes: Any) -> str:
        """Adds a node called `name` (or like it, if that is taken) and returns the name of its value, `output` or its own."""
        name = self.free(name)
        self.nodes.append(helper.make_node(kind, list(inputs), [output or name], name=name, **attributes))
        return output or name

    def constant(self, array: NDArray[Any], name: str) -> str:
        name = self.free(name)
        self.constants.append(numpy_helper.from_array(np.array(array, order="C"), name))
        return name

    def constant_of_4_bits(self, codes: NDArray[np.integer], name: str) -> str:
        """Unsigned codes, two in a byte, the first in the low half."""
        name = self.free(name)
        flat = codes.reshape(-1).astype(np.uint8)
        flat = np.append(flat, np.zeros(len(flat) % 2, np.uint8))
        packed = (flat[::2] | flat[1::2] << 4).tobytes()
        self.constants.append(helper.make_tensor(name, TensorProto.UINT4, codes.shape, packed, raw=True))
        return name

    def floats(self, values: Any, name: str) -> str:
        return self.constant(np.asarray(values, np.float32), name)

    def integers(self, values: Any, name: str) -> str:
        return self.constant(np.asarray(values, np.int64), name)

    def free(self, name: str) -> str:
        candidate, count = name, 0
        while candidate in self._names:
            count += 1
            candidate = f"{name}.{count}"
        self._names.add(candidate)
        return candidate
