"""What the signature of a step says (`Network.signature`), read back into numbers."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any

from bitplan.network import Shape

VALUE = re.compile(r"([io])(\d+(?:x\d+)*)")


@dataclass(frozen=True, slots=True)
class StepShape:
    """The operation (`conv2d`, `add`, `convert`), the shapes of the values that it reads and of the one that it writes
    (without the batch), and its parameters by name."""

    operation: str
    inputs: tuple[Shape, ...]
    output: Shape
    parameters: dict[str, Any]

    @property
    def is_layer(self) -> bool:
        return self.operation in ("conv2d", "linear")

    @property
    def elements(self) -> int:
        """Elements that are read and written."""
        return prod(self.output) + sum(map(prod, self.inputs))

    @property
    def groups(self) -> int:
        return int(self.parameters.get("groups", 1))

    @property
    def taps(self) -> int:
        """Places of the kernel."""
        return prod(self.parameters.get("kernel", (1,)))

    @property
    def strided(self) -> bool:
        return any(step > 1 for step in self.parameters.get("stride", ()))

    @property
    def out_channels(self) -> int:
        """Of a layer."""
        return self.output[0] if self.operation == "conv2d" else self.output[-1]

    @property
    def group_channels(self) -> int:
        """Input channels of each group of a layer."""
        source = self.inputs[0]
        return (source[0] if self.operation == "conv2d" else source[-1]) // self.groups

    @property
    def rows(self) -> int:
        """Output pixels of a convolution, rows of a linear layer."""
        return prod(self.output) // self.out_channels


@lru_cache(maxsize=1 << 16)
def step_shape(signature: str) -> StepShape:
    """Raises ValueError for a text that is no signature."""
    operation, *words = signature.split(" ")
    values = [match for word in words if (match := VALUE.fullmatch(word))]
    shapes = [(match[1], tuple(map(int, match[2].split("x")))) for match in values]
    outputs = [shape for kind, shape in shapes if kind == "o"]
    if len(outputs) != 1:
        raise ValueError(f"{signature!r} is no signature of a step: it names {len(outputs)} outputs")
    inputs = tuple(shape for kind, shape in shapes if kind == "i")
    pairs = (word.partition("=") for word in words if "=" in word)
    return StepShape(operation, inputs, outputs[0], {name: json.loads(value) for name, _, value in pairs})


__all__ = ["StepShape", "step_shape"]
