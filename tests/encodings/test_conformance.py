"""What every encoding promises, over all encodings x variants x layer shapes."""

from __future__ import annotations

import numpy as np
import pytest

from bitplan.encodings import BY_NAME, ENCODINGS, EncodedLayer, default_menu, encoding_of
from bitplan.encodings.order import stream_order
from bitplan.errors import FileFormatError
from bitplan.network import WeightShape
from bitplan.variant import F32, Variant

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
    for v in default_menu()
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
    if variant.activation == F32:
        with pytest.raises(ValueError, match="no scale"):
            layer.corrected(gain, bias)
        return
    corrected = layer.corrected(gain, bias + 1)
    np.testing.assert_array_equal(corrected.levels, layer.levels)
    np.testing.assert_allclose(corrected.weight, layer.weight * gain[:, None, None, None], rtol=2e-3, atol=1e-5)
    np.testing.assert_allclose(corrected.bias, bias + 1, rtol=1e-3, atol=4e-3)


@pytest.mark.parametrize("variant", default_menu(), ids=str)
def test_a_packed_layer_of_a_wrong_length_is_refused(variant: Variant) -> None:
    shape = WeightShape(16, 3, (3, 3))
    packed = encoding_of(variant).pack(random_layer(variant, shape)[2])
    for wrong in (packed[:-8], packed + bytes(8), b""):
        with pytest.raises(FileFormatError, match="bytes"):
            encoding_of(variant).unpack(wrong, shape, variant)


@pytest.mark.parametrize("variant", default_menu(), ids=str)
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
    for variant in default_menu():
        weight, _, layer = random_layer(variant, shape)
        errors[str(variant)] = float(((layer.weight - weight) ** 2).sum() / (weight**2).sum())
    ladder = ["float32", "int8", "int4", "int3", "int2", "ternary", "binary"]
    assert sorted(ladder, key=errors.__getitem__) == ladder
    kept = [name for name in errors if name.startswith("apb")]
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


def test_apb_keeps_exactly_its_fraction_and_uses_it_well() -> None:
    shape = WeightShape(32, 16, (3, 3))
    for variant in BY_NAME["apb"].variants:
        weight, _, layer = random_layer(variant, shape)
        assert len(layer.kept_positions) == round(variant.parameter("kept") * shape.count)
        assert len(layer.kept_positions) == BY_NAME["apb"].full_precision_weights(shape, variant)
        kept = layer.weight.ravel()[layer.kept_positions]
        np.testing.assert_allclose(kept, weight.ravel()[layer.kept_positions], rtol=2e-3)


def test_numbers_and_names_are_unique() -> None:
    assert len({e.number for e in ENCODINGS}) == len({e.name for e in ENCODINGS}) == len(ENCODINGS)
