"""Whether a variant that somebody wrote down is one that can be executed."""

from __future__ import annotations

from bitplan.encodings import BY_NAME, Encoding
from bitplan.errors import UsageError
from bitplan.suggest import suggestion
from bitplan.variant import Variant


def known_encoding(name: str) -> Encoding:
    """The encoding of that name. Raises UsageError with the known ones."""
    if name not in BY_NAME:
        hint = suggestion(name, BY_NAME)
        known = f"known are {', '.join(BY_NAME)}"
        raise UsageError(f"unknown encoding {name!r}; {f'{hint} ({known})' if hint.endswith('?') else known}")
    return BY_NAME[name]


def usual_activation(encoding: str) -> str:
    """The activation format of an encoding's variants where none is named. Raises UsageError."""
    return known_encoding(encoding).variants[0].activation


def check_variant(variant: Variant) -> Variant:
    """The variant itself, its parameters in the encoding's order. Raises UsageError for an unknown encoding, an
    activation format that it has no kernels for, and parameters that are unknown, missing, doubled or out of range."""
    encoding = known_encoding(variant.encoding)
    activations = dict.fromkeys(v.activation for v in encoding.variants)
    if variant.activation not in activations:
        raise UsageError(
            f"encoding {encoding.name} runs with activations in {' or '.join(activations)}, not {variant.activation}"
        )
    given = dict(variant.parameters)
    if len(given) != len(variant.parameters):
        raise UsageError(f"variant {variant} gives a parameter twice; give each once")
    for name in given:
        if name not in encoding.parameters:
            legal = (
                f"it has only {', '.join(encoding.parameters)}" if encoding.parameters else "it has none; leave it out"
            )
            raise UsageError(f"encoding {encoding.name} has no parameter {name!r}; {legal}")
    for name, (low, high) in encoding.parameters.items():
        if name not in given:
            example = encoding.variants[0].parameter(name)
            raise UsageError(f"encoding {encoding.name} needs the parameter {name!r}, for example {name}={example:g}")
        if not low < given[name] <= high:
            raise UsageError(
                f"parameter {name} of encoding {encoding.name} is {given[name]:g}; "
                f"it must be above {low:g} and at most {high:g}"
            )
        if float(f"{given[name]:g}") != given[name]:  # variants are keyed by their text
            raise UsageError(
                f"parameter {name} of encoding {encoding.name} is {given[name]!r}; give at most six digits"
            )
    return Variant(variant.encoding, variant.activation, tuple((name, given[name]) for name in encoding.parameters))


def parse_variants(text: str) -> tuple[Variant, ...]:
    """The variants behind `int4`, `apb:kept=0.03`, or an encoding's bare name, which stands for all that it offers.
    Raises UsageError."""
    name = text.strip()
    if name in BY_NAME:
        return BY_NAME[name].variants
    try:
        variant = Variant.parse(name)
    except ValueError as error:
        raise UsageError(str(error)) from None
    return (check_variant(variant),)
