"""Pruned layers: which weights are kept, what they take in the file, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitplan.encodings import BY_NAME, default_menu, encoding_of, every_variant
from bitplan.encodings.bits import elias_fano_size, packed_size
from bitplan.encodings.mask import kept_count, mask_size, pack_mask, stored_positions, unpack_mask
from bitplan.encodings.pruned import kept_weights
from bitplan.errors import FileFormatError, UsageError
from bitplan.network import WeightShape
from bitplan.variant import FLOAT32, Variant

NAMES = ("pruned", "prunedfloat")
SHAPE = WeightShape(12, 10, (3, 3))


def layer_of(name: str, share: float, seed: int = 0):
    variant = Variant.parse(f"{name}:kept={share}")
    weight = np.random.default_rng(seed).normal(size=(12, 10, 3, 3)).astype(np.float32)
    return weight, encoding_of(variant).quantise(weight, np.zeros(12, np.float32), variant)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 400), st.floats(0.001, 1), st.integers(0, 1000))
def test_any_mask_comes_back_in_the_announced_bytes(count: int, share: float, seed: int) -> None:
    kept = kept_count(count, share)
    positions = np.sort(np.random.default_rng(seed).choice(count, kept, replace=False)).astype(np.int64)
    data = pack_mask(positions, count)
    assert len(data) == mask_size(kept, count) == min(packed_size(count, 1), elias_fano_size(kept, count))
    np.testing.assert_array_equal(unpack_mask(data, kept, count), positions)


@pytest.mark.parametrize(("share", "bits"), [(0.05, 0.3125), (0.1, 0.525), (0.2, 0.85), (0.3, 1.0), (0.9, 1.0)])
def test_a_mask_takes_these_bits_per_weight(share: float, bits: float) -> None:
    assert 8 * mask_size(round(share * 160_000), 160_000) / 160_000 == pytest.approx(bits, abs=0.002)


def test_masks_of_another_number_of_weights_are_refused() -> None:
    bitmap = pack_mask(np.array([0, 3, 5]), 9)
    assert bitmap == bytes([0b101001, 0])
    for damaged in (bytes([0b101000, 0]), bytes([0b101011, 0]), bytes([0b101000, 2])):
        with pytest.raises(FileFormatError, match=r"mask of 9 weights marks \d of its bits, 3 were announced"):
            unpack_mask(damaged, 3, 9)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("share", [0.02, 0.1, 0.3, 0.5, 1.0])
def test_the_largest_weights_are_kept_and_little_changed(name: str, share: float) -> None:
    weight, layer = layer_of(name, share)
    kept = kept_weights(SHAPE, layer.variant)
    assert kept == round(share * 1080)
    magnitudes = np.abs(weight).ravel()
    largest = np.argsort(-magnitudes)[:kept]
    others = np.setdiff1d(np.arange(1080), largest)
    assert not layer.weight.ravel()[others].any()
    step = (
        2.0**-11 * magnitudes[largest] if name == "prunedfloat" else layer.scale[largest // 90]
    )  # scales are fitted behind rounding
    assert np.all(np.abs(layer.weight - weight).ravel()[largest] <= step + 1e-7)


def test_no_other_choice_of_weights_has_less_squared_error() -> None:
    weight = np.random.default_rng(1).normal(size=(2, 4, 1, 1)).astype(np.float32)
    variant = Variant.parse("prunedfloat:kept=0.375")
    layer = encoding_of(variant).quantise(weight, np.zeros(2, np.float32), variant)
    flat = weight.ravel()
    best = min(((np.delete(flat, list(kept))) ** 2).sum() for kept in combinations(range(8), 3))
    assert ((layer.weight - weight) ** 2).sum() == pytest.approx(best, rel=1e-3)


@pytest.mark.parametrize(("name", "head", "each"), [("pruned", 8 + 4 * 12, 1), ("prunedfloat", 4 + 4 * 12, 2)])
@pytest.mark.parametrize("share", [0.05, 0.3, 1.0])
def test_sizes_are_those_of_the_kept_weights_and_the_mask(name: str, head: int, each: int, share: float) -> None:
    variant, kept = Variant.parse(f"{name}:kept={share}"), round(share * 1080)
    size = head + each * kept + mask_size(kept, 1080)
    assert 0 <= encoding_of(variant).size_bytes(SHAPE, variant) - size < 8


@pytest.mark.parametrize(("name", "loaded"), [("pruned", Variant("int8")), ("prunedfloat", FLOAT32)])
def test_memory_is_that_of_the_layer_without_pruning(name: str, loaded: Variant) -> None:
    variant = Variant.parse(f"{name}:kept=0.3")
    assert encoding_of(variant).in_memory(variant) == loaded
    for shape in (SHAPE, WeightShape(24, 24, (3, 3), groups=24)):
        assert encoding_of(variant).resident_bytes(shape, variant) == encoding_of(loaded).resident_bytes(shape, loaded)


@pytest.mark.parametrize("name", NAMES)
def test_fewer_nonzero_weights_than_kept_ones_are_stored_with_zeros_and_more_are_refused(name: str) -> None:
    _, layer = layer_of(name, 0.3)
    encoding, field = BY_NAME[name], "levels" if name == "pruned" else "values"
    fewer = getattr(layer, field).copy()
    fewer[3] = 0
    packed = encoding.pack(replace(layer, **{field: fewer}))
    assert len(packed) == encoding.size_bytes(SHAPE, layer.variant)
    np.testing.assert_array_equal(getattr(encoding.unpack(packed, SHAPE, layer.variant), field), fewer)
    more = np.ones_like(fewer)
    with pytest.raises(UsageError, match="1080 weights of a pruned layer are not zero; its variant keeps 324"):
        encoding.pack(replace(layer, **{field: more}))


def test_the_stored_positions_are_the_nonzeros_and_then_the_first_zeros() -> None:
    assert list(stored_positions(np.array([0, 0, 5, 0, -1]), 3)) == [0, 2, 4]


def test_a_level_of_minus_128_is_refused() -> None:
    _, layer = layer_of("pruned", 0.3)
    packed = bytearray(BY_NAME["pruned"].pack(layer))
    packed[8 + 4 * 12] = 128
    with pytest.raises(FileFormatError, match="a level of -128 in a pruned layer"):
        BY_NAME["pruned"].unpack(bytes(packed), SHAPE, layer.variant)


def test_pruning_is_asked_for_by_name() -> None:
    assert not {variant.encoding for variant in default_menu()} & set(NAMES)
    assert {variant.encoding for variant in every_variant()} == set(BY_NAME)
