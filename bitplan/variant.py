"""A variant: one way to store a layer's weights and to feed its activations."""

from __future__ import annotations

import re
from dataclasses import dataclass

F32 = "f32"
U8 = "u8"
FORMATS = (F32, U8)
"""Activation formats: 32-bit floats, or unsigned bytes q with x = scale * (q - zero_point)."""


@dataclass(frozen=True, slots=True, order=True)
class Variant:
    """Weight encoding x activation format x parameters, written `apb:kept=0.01` (format left out: the usual one).

    Operations without weights use the encoding `none`; their format is that of their inputs.
    """

    encoding: str
    activation: str = U8
    parameters: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        if self.activation not in FORMATS:
            raise ValueError(f"activation format {self.activation!r} is not one of {', '.join(FORMATS)}")

    def __str__(self) -> str:
        return ":".join([self.encoding, *(f"{name}={value:g}" for name, value in self.parameters)])

    def parameter(self, name: str) -> float:
        return dict(self.parameters)[name]

    @staticmethod
    def parse(text: str) -> Variant:
        """Reads `encoding[:name=value]...`. Raises ValueError with the rule that was broken."""
        encoding, *rest = text.strip().split(":")
        if not re.fullmatch(r"[a-z][a-z0-9]*", encoding):
            raise ValueError(f"variant {text!r} must look like 'int4' or 'apb:kept=0.01'")
        parameters = []
        for part in rest:
            name, equals, value = part.partition("=")
            try:
                parameters.append((name, float(value)))
            except ValueError:
                equals = ""
            if not (name and equals):
                raise ValueError(f"in variant {text!r}, {part!r} must look like 'kept=0.01'")
        return Variant(encoding, F32 if encoding == "float32" else U8, tuple(parameters))


FLOAT32 = Variant("float32", F32)
OPERATION = {F32: Variant("none", F32), U8: Variant("none", U8)}
"""The variants of an operation without weights, by the format of its inputs."""
