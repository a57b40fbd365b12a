"""Weight encodings: one file each, and the one ordered list of them."""

from __future__ import annotations

from bitplan.encodings.apb import Apb, Apb4
from bitplan.encodings.base import EncodedLayer, Encoding
from bitplan.encodings.binary import Binary
from bitplan.encodings.coded import Coded, CodedTernary
from bitplan.encodings.even import EvenLevels
from bitplan.encodings.float32 import Float32
from bitplan.encodings.int3 import Int3
from bitplan.encodings.int8 import Int8
from bitplan.encodings.levels import UniformEncoding
from bitplan.encodings.pruned import Pruned, PrunedFloat
from bitplan.encodings.ternary import Ternary
from bitplan.encodings.xor import Xor
from bitplan.errors import UsageError
from bitplan.variant import Variant

ENCODINGS: tuple[Encoding, ...] = (
    Float32(),
    Int8(),
    UniformEncoding(bits=4, number=2),
    Int3(),
    UniformEncoding(bits=2, number=4),
    Ternary(),
    Binary(),
    Apb(),
    Coded(),
    CodedTernary(),
    Xor(),
    Pruned(),
    PrunedFloat(),
    EvenLevels("int6", bits=6, zero=False),
    EvenLevels("int5", bits=5, zero=False),
    Apb4(),
)

BY_NAME: dict[str, Encoding] = {encoding.name: encoding for encoding in ENCODINGS}


def encoding_of(variant: Variant) -> Encoding:
    """The encoding of a variant. Raises UsageError, naming the known ones, for an unknown name."""
    try:
        return BY_NAME[variant.encoding]
    except KeyError:
        raise UsageError(f"unknown encoding {variant.encoding!r}; known are {', '.join(BY_NAME)}") from None


def every_variant() -> tuple[Variant, ...]:
    """Every variant that an encoding offers, in order."""
    return tuple(variant for encoding in ENCODINGS for variant in encoding.variants)


def default_menu() -> tuple[Variant, ...]:
    """Those that are planned with where nothing is asked for, in order."""
    return tuple(variant for encoding in ENCODINGS if encoding.on_default_menu for variant in encoding.variants)


__all__ = ["BY_NAME", "ENCODINGS", "EncodedLayer", "Encoding", "default_menu", "encoding_of", "every_variant"]
