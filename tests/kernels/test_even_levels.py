"""Layers of evenly spaced levels in the runtime: what they compute, and damaged ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bitplan.kernels import Runtime, artifact
from bitplan.network import Conv2d, Input
from bitplan.variant import Variant

from .hostile import one_layer, patched, refused, survives, weight_record_of
from .networks import make_case, network_of, random_inputs

INT6, INT5 = Variant("int6"), Variant("int5")
LEVELS = 8 + 4 * 20
"""Where the one layer's levels begin, behind scales and biases."""


@pytest.mark.parametrize("variant", [INT6, INT5], ids=str)
@pytest.mark.parametrize("groups", [1, 2, 24])
def test_a_loaded_layer_is_the_one_of_int8_that_has_the_same_levels(variant: Variant, groups: int) -> None:
    rng = np.random.default_rng(4)
    op = Conv2d((3, 3), (1, 1), (1, 1, 1, 1), groups=groups)
    network = network_of([("x", Input(), (), (24, 7, 7)), ("op", op, ("x",), (24, 7, 7))], ["op"])
    inputs = random_inputs(network, 2, rng)
    case = make_case(network, {"op": variant}, inputs, rng)
    wide = replace(case.layers["op"], variant=Variant("int8"))
    other = artifact.pack_artifact(network, {}, {"op": wide}, case.ranges, planned_batch=4)
    assert len(case.artifact) < len(other)
    found, expected = (Runtime.from_bytes(data)(inputs)["op"] for data in (case.artifact, other))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("bits", [0, 8, 2**32 - 1])
def test_the_number_of_bits_is_checked(bits: int) -> None:
    data, _ = one_layer(INT6)
    refused(
        patched(data, weight_record_of(data) + 2, "I", bits), "'op'", f"its levels have {bits} bits; expected 1 to 7"
    )


def test_a_size_that_is_not_that_of_the_bits_is_refused() -> None:
    data, _ = one_layer(INT6)
    refused(patched(data, weight_record_of(data) + 2, "I", 5), "'op'", "even of its shape needs")


@pytest.mark.parametrize(
    ("lowest", "step", "words"),
    [
        (-128, 2, "from -128 in steps of 2 to -2"),
        (-63, 0, "in steps of 0"),
        (-63, 4, "to 189"),
        (2, 2, "from 2 in steps of 2 to 128"),
    ],
)
def test_levels_beyond_a_byte_are_refused(lowest: int, step: int, words: str) -> None:
    data, at = one_layer(INT6)
    refused(patched(data, at + LEVELS, "bB", lowest, step), "'op'", words, "expected -127 to 127")


def test_damaged_layers_never_crash() -> None:
    data, at = one_layer(INT5)
    for place in (*range(weight_record_of(data), at), *range(at, len(data), 3)):
        survives(patched(data, place, "B", data[place] ^ 1 << place % 8))
