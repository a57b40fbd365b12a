"""What every encoding promises, over all encodings x variants x layer shapes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bitplan.compute import BITS, BYTES, LOOKUP, kernels_for
from bitplan.encodings import BY_NAME, ENCODINGS, EncodedLayer, Encoding, encoding_of, every_variant
from bitplan.encodings.channel_numbers import SHORT_FLOATS
from bitplan.encodings.order import stream_order
from bitplan.errors import FileFormatError
from bitplan.network import WeightShape
from bitplan.variant import FLOAT32, Variant, usual_activation

SHAPES = [
    WeightShape(10, 64),
    WeightShape(16, 3, (3, 3)),
    WeightShape(37, 5, (3, 3)),
    WeightShape(33, 17, (1, 1)),
    WeightShape(24, 24, (3, 3), groups=24),
    WeightShape(7, 7, (5, 5), groups=7),
    WeightShape(12, 8, (3, 3), groups=4),
    WeightShape(40, 40, (3, 3), groups=2),
    WeightShape(64, 64, (3, 3)),
    WeightShape(1, 1),
]

CASES = [
    pytest.param(v, s, id=f"{v}-{s.out_channels}x{s.in_channels}k{s.kernel}g{s.groups}")
    for v in every_variant()
    for s in SHAPES
    if encoding_of(v).supports(s)
]


def random_layer(variant: Variant, shape: WeightShape, seed: int = 0) -> tuple[np.ndarray, np.ndarray, EncodedLayer]:
    rng = np.random.default_rng(seed)
    size = (shape.out_channels, shape.in_channels // shape.groups, *shape.kernel)
    weight = (rng.normal(size=size) * rng.uniform(0.01, 2, (size[0], 1, 1, 1))).astype(np.float32)
    bias = rng.normal(size=shape.out_channels).astype(np.float32)
    return weight, bias, encoding_of(variant).quantise(weight, bias, variant, shape.groups)


@pytest.mark.parametrize(("variant", "shape"), CASES)
def test_packing_loses_nothing_and_has_the_announced_size(variant: Variant, shape: WeightShape) -> None:
    encoding = encoding_of(variant)
    _, _, layer = random_layer(variant, shape)
    packed = encoding.pack(layer)
    assert len(packed) == encoding.size_bytes(shape, variant)
    assert len(packed) % 8 == 0
    again = encoding.unpack(packed, shape, variant)
    np.testing.assert_array_equal(again.weight, layer.weight)
    np.testing.assert_array_equal(again.bias, layer.bias)
    assert encoding.pack(again) == packed


@pytest.mark.parametrize("name", ["float32", "ternary", "binary"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_layer_on_its_own_grid_is_found_again(name: str, shape: WeightShape) -> None:
    variant = BY_NAME[name].variants[0]
    weight, _, layer = random_layer(variant, shape)
    again = BY_NAME[name].quantise(layer.weight, layer.bias, variant, shape.groups)
    np.testing.assert_allclose(again.weight, layer.weight, rtol=1e-3, atol=1e-6 * np.abs(weight).max())


@pytest.mark.parametrize(("variant", "shape"), CASES)
def test_correction_keeps_the_codes(variant: Variant, shape: WeightShape) -> None:
    _, bias, layer = random_layer(variant, shape)
    gain = np.linspace(0.5, 1.5, shape.out_channels, dtype=np.float32)
    if variant == FLOAT32:
        with pytest.raises(ValueError, match="no scale"):
            layer.corrected(gain, bias)
        return
    corrected = layer.corrected(gain, bias + 1)
    np.testing.assert_array_equal(corrected.levels, layer.levels)
    np.testing.assert_array_equal(corrected.weight == 0, layer.weight == 0)
    short = corrected.numbers is SHORT_FLOATS
    expected = layer.weight * gain[:, None, None, None]
    np.testing.assert_allclose(corrected.weight, expected, rtol=4e-2 if short else 2e-3, atol=1e-5)
    np.testing.assert_allclose(corrected.bias, bias + 1, rtol=4e-2 if short else 1e-3, atol=2e-2 if short else 4e-3)


@pytest.mark.parametrize("encoding", ENCODINGS, ids=lambda encoding: encoding.name)
def test_a_variant_without_a_format_reads_the_first_of_its_encoding(encoding: Encoding) -> None:
    assert usual_activation(encoding.name) == encoding.activations[0]


@pytest.mark.parametrize("variant", every_variant(), ids=str)
def test_a_packed_layer_of_a_wrong_length_is_refused(variant: Variant) -> None:
    shape = WeightShape(16, 3, (3, 3))
    packed = encoding_of(variant).pack(random_layer(variant, shape)[2])
    for wrong in (packed[:-8], packed + bytes(8), b""):
        with pytest.raises(FileFormatError, match="bytes"):
            encoding_of(variant).unpack(wrong, shape, variant)


@pytest.mark.parametrize("variant", every_variant(), ids=str)
def test_rows_of_zeros_and_single_weights_are_stored_exactly_enough(variant: Variant) -> None:
    weight = np.zeros((4, 3, 3, 3), np.float32)
    weight[1, 0, 0, 0] = 3.0
    layer = encoding_of(variant).quantise(weight, np.zeros(4, np.float32), variant)
    assert np.all(np.isfinite(layer.weight))
    np.testing.assert_array_equal(layer.weight[[0, 2, 3]], 0)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_stream_order_is_a_permutation(shape: WeightShape) -> None:
    np.testing.assert_array_equal(np.sort(stream_order(shape)), np.arange(shape.count))


def test_the_stream_order_is_the_documented_one() -> None:
    order = stream_order(WeightShape(18, 5, (1, 1)))  # 16 + 2 channels, K = 4 + 1
    assert list(order[:8]) == [0, 1, 2, 3, 5, 6, 7, 8]  # four weights of channel 0, then of channel 1
    assert list(order[64:66]) == [4, 9]  # the fifth weight of channels 0 and 1
    assert list(order[80:]) == [80, 81, 82, 83, 85, 86, 87, 88, 84, 89]  # the block of the two last channels


def test_error_falls_with_more_bits() -> None:
    shape = WeightShape(64, 64, (3, 3))
    errors = {}
    for variant in every_variant():
        weight, _, layer = random_layer(variant, shape)
        errors[str(variant)] = float(((layer.weight - weight) ** 2).sum() / (weight**2).sum())
    ladder = ["float32", "int8", "int6", "int5", "int4", "int3", "int2", "ternary", "binary"]
    assert sorted(ladder, key=errors.__getitem__) == ladder
    for encoding in ("apb", "apb4"):
        kept = [str(variant) for variant in BY_NAME[encoding].variants]
        assert sorted(kept, key=errors.__getitem__, reverse=True) == kept
        assert errors[kept[0]] < errors["binary"]


def test_ternary_is_the_best_ternary_row() -> None:
    rng = np.random.default_rng(3)
    rows = rng.normal(size=(20, 7)).astype(np.float32)
    layer = BY_NAME["ternary"].quantise(rows[:, :, None, None], np.zeros(20, np.float32), Variant("ternary"))
    codes = np.stack(np.meshgrid(*[[-1, 0, 1]] * 7, indexing="ij"), -1).reshape(-1, 7)
    codes = codes[np.abs(codes).sum(1) > 0]
    for row, stored in zip(rows, layer.weight[:, :, 0, 0], strict=True):
        best = np.min(((row - (codes @ row / (codes**2).sum(1))[:, None] * codes) ** 2).sum(1))
        assert ((row - stored) ** 2).sum() <= best * 1.01 + 1e-6


@pytest.mark.parametrize(("name", "top", "half_a_step"), [("apb", 63, 0.51), ("apb4", 7, 0.6)])
def test_apb_keeps_exactly_its_fraction_and_uses_it_well(name: str, top: int, half_a_step: float) -> None:
    shape = WeightShape(32, 16, (3, 3))
    for variant in BY_NAME[name].variants:
        weight, _, layer = random_layer(variant, shape)
        assert len(layer.kept_positions) == round(variant.parameter("kept") * shape.count)
        assert len(layer.kept_positions) == BY_NAME[name].full_precision_weights(shape, variant)
        levels = layer.levels.reshape(shape.out_channels, -1)
        unit = np.unique(np.abs(np.delete(layer.levels, layer.kept_positions)))
        assert unit.shape == (1,) and 1 <= unit[0] <= top
        assert np.abs(levels).max() <= top
        # a kept weight lies within half a step, or it is the largest that there is
        kept, scale = layer.kept_positions, layer.scale[layer.kept_positions // shape.reduction]
        far = np.abs(layer.weight.ravel()[kept] - weight.ravel()[kept]) > half_a_step * scale
        assert np.all(np.abs(layer.levels.ravel()[kept][far]) == top)
        assert far.sum() <= 0.05 * len(kept)


@pytest.mark.parametrize(("name", "bound"), [("apb", 1.05), ("apb4", 1.2)])
@pytest.mark.parametrize("tail", ["normal", "heavy", "outlier"])
def test_apb_is_about_as_good_as_with_exact_kept_weights(tail: str, name: str, bound: float) -> None:
    rng = np.random.default_rng(4)
    weight = rng.normal(size=(32, 64, 3, 3)) if tail == "normal" else rng.standard_t(4, (32, 64, 3, 3))
    weight[3, 5, 1, 1] *= 20 if tail == "outlier" else 1
    weight = weight.astype(np.float32)
    for variant in BY_NAME[name].variants:
        layer = BY_NAME[name].quantise(weight, np.zeros(32, np.float32), variant)
        exact = layer.weight.copy().ravel()
        exact[layer.kept_positions] = weight.ravel()[layer.kept_positions]
        error = float(((layer.weight - weight) ** 2).sum())
        assert error <= bound * float(((exact - weight.ravel()) ** 2).sum())


@pytest.mark.parametrize(
    ("name", "place", "value", "rule"),
    [
        ("apb", 0, 0, "unit .* is 0"),
        ("apb", 0, 64, "unit .* is 64"),
        ("apb", 1, 64, "outside"),
        ("apb", 2, 192, "outside"),
        ("apb4", 0, 0, "unit .* is 0"),
        ("apb4", 0, 8, "unit .* is 8"),
    ],
)
def test_apb_levels_beyond_the_format_are_refused(name: str, place: int, value: int, rule: str) -> None:
    variant, shape = BY_NAME[name].variants[-1], WeightShape(32, 16, (3, 3))
    packed = bytearray(BY_NAME[name].pack(random_layer(variant, shape)[2]))
    packed[8 + 4 * shape.out_channels + shape.count // 8 + place] = value
    with pytest.raises(FileFormatError, match=rule):
        BY_NAME[name].unpack(bytes(packed), shape, variant)


@pytest.mark.parametrize("name", [e.name for e in ENCODINGS])
def test_the_format_of_the_activations_changes_nothing_in_the_file(name: str) -> None:
    encoding, shape = BY_NAME[name], WeightShape(37, 5, (3, 3))
    packed = set()
    for form in encoding.activations:
        variant = replace(encoding.variants[0], activation=form)
        packed.add(encoding.pack(random_layer(variant, shape)[2]))
        assert len(next(iter(packed))) == encoding.size_bytes(shape, variant)
    assert len(packed) == 1


def test_bytes_in_memory_are_the_documented_ones() -> None:
    shape = WeightShape(37, 70, (3, 3))  # 3 blocks of 16, 2 of 32, 3 words of 32 channels
    count = 37 * 70 * 9

    def resident(text: str, kernel: str | None = None) -> int:
        variant = Variant.parse(text)
        return encoding_of(variant).resident_bytes(shape, variant, kernel)

    plane, signs = 4 * 48 * 9 * 3, 16 * 2 * 9 * 8 * 3
    assert resident("binary", BYTES) == resident("binary@u2", BYTES) == 8 * 37 + -(-count // 8)
    assert resident("binary@u2", BITS) == 8 * 37 + 4 * 48 + plane
    assert resident("ternary@u2", BITS) == 8 * 37 + 4 * 48 + 2 * plane
    assert resident("binary@u2", LOOKUP) == 8 * 37 + signs
    assert resident("ternary@u2", LOOKUP) == 8 * 37 + 2 * signs
    kept = round(0.02 * count)
    assert resident("apb@u2:kept=0.02", BYTES) == resident("binary", BYTES) + 5 * kept + 4 * 2
    assert resident("apb@u2:kept=0.02", BITS) == resident("binary@u2", BITS) + 6 * kept + 4 * 38
    with pytest.raises(ValueError, match="'floats' does not run int4"):
        resident("int4", "floats")


@pytest.mark.parametrize("text", ["binary", "ternary@u4", "binary@u1", "apb@u2:kept=0.04", "int4@u1", "float32"])
def test_without_a_kernel_memory_is_that_of_the_one_that_needs_most(text: str) -> None:
    variant = Variant.parse(text)
    encoding = encoding_of(variant)
    for shape in (WeightShape(10, 64), WeightShape(64, 3, (3, 3)), WeightShape(64, 256, (3, 3))):
        each = [encoding.resident_bytes(shape, variant, kernel) for kernel in kernels_for(variant)]
        assert encoding.resident_bytes(shape, variant) == max(each)


def test_kept_weights_of_grouped_layers_lie_by_panel_of_each_group() -> None:
    variant = Variant.parse("apb:kept=0.1")
    depthwise, grouped = WeightShape(80, 80, (3, 3), groups=80), WeightShape(140, 8, groups=2)
    assert BY_NAME["apb"].resident_bytes(depthwise, variant) == 8 * 80 + depthwise.count
    kept = round(0.1 * grouped.count)
    expected = 8 * 140 + grouped.count // 8 + 5 * kept + 4 * (2 * 2 + 1)
    assert BY_NAME["apb"].resident_bytes(grouped, variant) == expected


def test_numbers_and_names_are_unique() -> None:
    assert len({e.name for e in ENCODINGS}) == len(ENCODINGS)
    held = {(e.number, e.stored_as) for e in ENCODINGS}
    assert len({number for number, _ in held}) == len({name for _, name in held}) == len(held)
