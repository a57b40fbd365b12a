"""A variant: one way to store a layer's weights and to feed its activations."""

from __future__ import annotations

import re
from dataclasses import dataclass

F32, U8, U4, U2, U1 = "f32", "u8", "u4", "u2", "u1"
FORMATS = (F32, U8, U4, U2, U1)
"""Activation formats: 32-bit floats, or unsigned codes q of 8, 4, 2, 1 bits with x = scale * (q - zero_point)."""

BITS = {F32: 32, U8: 8, U4: 4, U2: 2, U1: 1}
"""Bits of one activation in each format."""


@dataclass(frozen=True, slots=True, order=True)
class Variant:
    """Weight encoding x activation format x parameters, written `binary@u2`, `apb@u1:kept=0.01` or, with the usual
    format left out (f32 for float32 and prunedfloat, else u8), `apb:kept=0.01`.

    Operations without weights use the encoding `none`; their format is that of their inputs.
    """

    encoding: str
    activation: str = U8
    parameters: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        if self.activation not in FORMATS:
            raise ValueError(f"activation format {self.activation!r} is not one of {', '.join(FORMATS)}")

    def __str__(self) -> str:
        form = "" if self.activation == usual_activation(self.encoding) else f"@{self.activation}"
        return ":".join([self.encoding + form, *(f"{name}={value:g}" for name, value in self.parameters)])

    def parameter(self, name: str) -> float:
        return dict(self.parameters)[name]

    @staticmethod
    def parse(text: str) -> Variant:
        """Reads `encoding[@format][:name=value]...`. Raises ValueError with the rule that was broken."""
        head, *rest = text.strip().split(":")
        encoding, at, form = head.partition("@")
        if not re.fullmatch(r"[a-z][a-z0-9]*", encoding):
            raise ValueError(f"variant {text!r} must look like 'int4', 'binary@u2' or 'apb:kept=0.01'")
        if at and form not in FORMATS:
            raise ValueError(f"in variant {text!r}, activation format {form!r} is not one of {', '.join(FORMATS)}")
        parameters = []
        for part in rest:
            name, equals, value = part.partition("=")
            try:
                parameters.append((name, float(value)))
            except ValueError:
                equals = ""
            if not (name and equals):
                raise ValueError(f"in variant {text!r}, {part!r} must look like 'kept=0.01'")
        return Variant(encoding, form or usual_activation(encoding), tuple(parameters))


def usual_activation(encoding: str) -> str:
    """The activation format of a variant that names none."""
    return F32 if encoding in ("float32", "prunedfloat") else U8


FLOAT32 = Variant("float32", F32)
OPERATION = {F32: Variant("none", F32), U8: Variant("none", U8)}
"""The variants of an operation without weights, by the format of its inputs."""
