"""The graph of an archive as it is stored: its nodes, inputs, outputs, sizes and tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from bitplan.errors import FileFormatError, UnsupportedError
from bitplan.network import Shape

PATH = re.compile(r"[\w-]+(\.[\w-]+)*")
"""How parameters are called; torch.fx writes these names into Python code, so nothing else may pass."""


class Graph:
    """The serialised graph with the tensors it names; `path` leads errors."""

    def __init__(self, path: Path, content: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        self.path, self.tensors = path, tensors
        self.nodes = content["graph"]["nodes"]
        self.values = content["graph"]["tensor_values"]
        self.inputs = [self._input(spec) for spec in content["signature"]["input_specs"]]
        self.outputs = [name for spec in content["signature"]["output_specs"] if (name := self._output(spec))]

    def sizes(self, name: str) -> list[int | None]:
        """The sizes of a value, None for what may vary."""
        return [size.get("as_int") for size in self.values[name]["sizes"]]

    def input_size(self) -> tuple[int | None, Shape | None]:
        """The batch and the shape (batch left out) of the only input; None for what may vary or for several inputs."""
        names = [name for name, stored in self.inputs if stored is None]
        if len(names) != 1 or len(self.sizes(names[0])) < 2:
            return None, None
        batch, *others = self.sizes(names[0])
        fixed = tuple(size for size in others if size is not None)
        return batch, fixed if len(fixed) == len(others) else None

    def batch(self) -> int | None:
        """The number of images that the program was exported for; None where it may vary."""
        sizes = [self.sizes(name) for name, stored in self.inputs if stored is None]
        return sizes[0][0] if sizes and sizes[0] else None

    def _input(self, spec: Mapping[str, Any]) -> tuple[str, str | None]:
        """The name of a value that the graph is given, and of the tensor it is (None for the user's)."""
        kind, content = next((key, value) for key, value in spec.items() if value is not None)
        if kind == "user_input" and "as_tensor" in content["arg"]:
            return content["arg"]["as_tensor"]["name"], None
        if kind in ("parameter", "buffer", "tensor_constant"):
            path = content[f"{kind}_name"]
            if not PATH.fullmatch(path):
                raise FileFormatError(f"{self.path}: {path!r} is no name of a parameter; is the file damaged?")
            return content["arg"]["name"], path
        raise UnsupportedError(
            f"{self.path}: the network takes an input of the kind {kind!r}; export it with tensors only"
        )

    def _output(self, spec: Mapping[str, Any]) -> str:
        kind, content = next((key, value) for key, value in spec.items() if value is not None)
        if kind == "user_output" and "as_tensor" in content["arg"]:
            return str(content["arg"]["as_tensor"]["name"])
        if kind == "user_input_mutation":  # an activation in place on the input
            return ""
        target = content.get("buffer_name") or content.get("parameter_name") or ""
        raise UnsupportedError(
            f"{self.path}: the network returns or changes something else than tensors computed from its input ({kind} "
            f"{target}); call module.eval() before torch.export.export"
        )
