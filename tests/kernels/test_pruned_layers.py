"""Pruned layers in the runtime: what they compute, and damaged ones."""

from __future__ import annotations

import struct
from dataclasses import replace

import numpy as np
import pytest

from bitplan.kernels import Runtime, artifact
from bitplan.network import Conv2d, Input
from bitplan.variant import FLOAT32, Variant

from .hostile import one_layer, patched, refused, survives, weight_record_of
from .networks import make_case, network_of, random_inputs

FEW, MANY = Variant.parse("pruned:kept=0.05"), Variant.parse("pruned:kept=0.4")
FLOATS = Variant.parse("prunedfloat:kept=0.4")
COUNT, LEVELS = 600, 8 + 4 * 20
"""Weights of the one layer, and where its levels begin."""


@pytest.mark.parametrize("variant", [FEW, MANY, FLOATS], ids=str)
@pytest.mark.parametrize("groups", [1, 2, 24])
def test_a_loaded_layer_is_the_one_without_pruning_that_has_the_same_weights(variant: Variant, groups: int) -> None:
    rng = np.random.default_rng(4)
    op = Conv2d((3, 3), (1, 1), (1, 1, 1, 1), groups=groups)
    network = network_of([("x", Input(), (), (24, 7, 7)), ("op", op, ("x",), (24, 7, 7))], ["op"])
    inputs = random_inputs(network, 2, rng)
    case = make_case(network, {"op": variant}, inputs, rng)
    dense = replace(case.layers["op"], variant=FLOAT32 if variant == FLOATS else Variant("int8"))
    other = artifact.pack_artifact(network, {}, {"op": dense}, case.ranges, planned_batch=4)
    assert len(case.artifact) < len(other)
    found, expected = (Runtime.from_bytes(data)(inputs)["op"] for data in (case.artifact, other))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("kept", [0, 3, 601, 2**32 - 1])
@pytest.mark.parametrize("variant", [FEW, FLOATS], ids=str)
def test_the_number_of_kept_weights_is_checked(variant: Variant, kept: int) -> None:
    data, _ = one_layer(variant)
    words = [f"it keeps {kept} of 600 weights", "more than one in 160"]
    refused(patched(data, weight_record_of(data) + 2, "I", kept), "'op'", *words)


def test_a_size_that_is_not_that_of_the_kept_weights_is_refused() -> None:
    data, _ = one_layer(FLOATS)
    refused(patched(data, weight_record_of(data) + 2, "I", 200), "'op'", "prunedfloat of its shape needs")


def test_masks_and_values_are_checked() -> None:
    data, at = one_layer(MANY)
    kept = round(0.4 * COUNT)
    refused(patched(data, at + LEVELS, "B", 128), "'op'", "a level of -128")
    mask = at + LEVELS + kept
    refused(patched(data, mask, "75s", bytes(75)), "its mask of 600 weights marks 0 of its bits; 240 were announced")
    refused(patched(data, mask, "75s", b"\xff" * 75), "marks 600 of its bits; 240 were announced")
    few, start = one_layer(FEW)
    refused(patched(few, start + LEVELS + 30 + 15, "9s", bytes(9)), "'op'", "30 were announced")
    floats, start = one_layer(FLOATS)
    refused(patched(floats, start, "f", float("inf")), "'op'", "a weight is")
    refused(patched(floats, start + 4, "f", float("nan")), "'op'", "a bias is")


@pytest.mark.parametrize("variant", [FEW, MANY, FLOATS], ids=str)
def test_damaged_pruned_layers_never_crash(variant: Variant) -> None:
    data, at = one_layer(variant)
    for place in (*range(weight_record_of(data), at), *range(at, len(data), 3)):
        survives(patched(data, place, "B", data[place] ^ 1 << place % 8))
    longer = struct.pack("<I", COUNT)
    survives(patched(data, weight_record_of(data) + 2, "4s", longer))
