"""Whether a variant that somebody wrote down is one that can be executed."""

from __future__ import annotations

from dataclasses import replace

from bitplan.compute import kernels_for, supports_format
from bitplan.encodings import BY_NAME, Encoding, encoding_of
from bitplan.errors import UsageError
from bitplan.network import WeightShape
from bitplan.suggest import alternatives, suggestion
from bitplan.variant import U1, U2, U4, U8, Variant

LOW = (U4, U2, U1)
"""The formats whose ranges an artifact holds with the layers that read them."""
RANGE_BYTES = 5


def known_encoding(name: str) -> Encoding:
    """The encoding of that name. Raises UsageError with the known ones."""
    if name not in BY_NAME:
        hint = suggestion(name, BY_NAME)
        known = f"known are {', '.join(BY_NAME)}"
        raise UsageError(f"unknown encoding {name!r}; {f'{hint} ({known})' if hint.endswith('?') else known}")
    return BY_NAME[name]


def supports(variant: Variant, shape: WeightShape) -> bool:
    """Whether a layer of this shape can be stored so and can read its input so."""
    return encoding_of(variant).supports(shape) and supports_format(shape, variant.activation)


def why_not(variant: Variant, shape: WeightShape) -> str:
    """What a layer that does not support a variant lacks, and what it can be instead."""
    if not encoding_of(variant).supports(shape):
        return f"its shape {shape} cannot be stored as {variant.encoding}; choose another encoding"
    return f"it has {shape.groups} groups, and below 8 bits layers without groups alone can read; choose {U8}"


def stored_bytes(shape: WeightShape, variant: Variant) -> int:
    """What an artifact holds of a layer because it has this variant: its packed weights, and below 8 bits the range of what it
    reads."""
    return encoding_of(variant).size_bytes(shape, variant) + (RANGE_BYTES if variant.activation in LOW else 0)


def check_kernel(variant: Variant, kernel: str) -> str:
    """The kernel itself. Raises UsageError, naming the legal ones, where it does not run such layers."""
    if kernel not in kernels_for(variant):
        legal = alternatives(kernels_for(variant))
        raise UsageError(f"{variant} runs on the kernel {legal}, not {kernel!r}; leave the kernel out or name another")
    return kernel


def check_variant(variant: Variant) -> Variant:
    """The variant itself, its parameters in the encoding's order. Raises UsageError for an unknown encoding, an
    activation format that it has no kernels for, and parameters that are unknown, missing, doubled or out of range."""
    encoding = known_encoding(variant.encoding)
    _check_activation(encoding, variant.activation)
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
    """The variants behind `int4`, `binary@u2`, `apb:kept=0.03`, `apb@u2:kept=0.03`, or an encoding without its
    parameters (`apb`, `apb@u2`), which stands for all those that it offers. Raises UsageError."""
    head, *parameters = text.strip().split(":")
    name, at, form = head.partition("@")
    if name in BY_NAME and at:
        _check_activation(BY_NAME[name], form)
    if name in BY_NAME and not parameters:
        return tuple(replace(v, activation=form or v.activation) for v in BY_NAME[name].variants)
    try:
        variant = Variant.parse(text)
    except ValueError as error:
        raise UsageError(str(error)) from None
    return (check_variant(variant),)


def _check_activation(encoding: Encoding, form: str) -> None:
    if form not in encoding.activations:
        legal = alternatives(encoding.activations)
        raise UsageError(f"encoding {encoding.name} runs with activations in {legal}, not {form!r}")
