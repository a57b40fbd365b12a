"""Scales and biases as a file holds them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from bitplan.encodings.channel_numbers import HALVES, SHORT_FLOATS, ChannelNumbers
from bitplan.errors import FileFormatError

Floats = NDArray[np.float32]

numbers = pytest.mark.parametrize("numbers", [HALVES, SHORT_FLOATS], ids=["halves", "short floats"])
channels = st.shared(st.integers(1, 40), key="channels")
scales = channels.flatmap(lambda n: arrays(np.float32, n, elements=st.floats(0, 2.0**100, width=32)))
biases = channels.flatmap(lambda n: arrays(np.float32, n, elements=st.floats(-(2.0**100), 2.0**100, width=32)))
live_channels = channels.flatmap(lambda n: arrays(np.bool_, n))
live_channels_later = channels.flatmap(lambda n: arrays(np.bool_, n))


@numbers
@given(scale=scales, bias=biases, live=live_channels)
def test_what_was_rounded_is_packed_and_unpacked_as_it_is(
    numbers: ChannelNumbers, scale: Floats, bias: Floats, live: NDArray[np.bool_]
) -> None:
    rounded = numbers.rounded(scale, bias, live)
    packed = numbers.pack(scale, bias, live)
    assert len(packed) == numbers.size_bytes(len(scale))
    for found in (numbers.unpack(packed, len(scale)), numbers.rounded(*rounded, live)):
        for value, expected in zip(found, rounded, strict=True):
            assert value.dtype == np.float32
            np.testing.assert_array_equal(value, expected)


@numbers
@given(scale=scales, bias=biases, live=live_channels, later=live_channels_later)
def test_levels_that_change_later_do_not_change_what_was_rounded(
    numbers: ChannelNumbers, scale: Floats, bias: Floats, live: NDArray[np.bool_], later: NDArray[np.bool_]
) -> None:
    rounded = numbers.rounded(scale, bias, live)
    for value, expected in zip(numbers.unpack(numbers.pack(*rounded, later), len(scale)), rounded, strict=True):
        np.testing.assert_array_equal(value, expected)


def test_a_dead_channel_keeps_a_scale_and_zero_stays_zero() -> None:
    scale = np.array([*np.linspace(0.5, 1, 20), 1e-6, 0], np.float32)
    found, _ = SHORT_FLOATS.rounded(scale, scale, scale > 0.1)
    assert 0 < found[-2] < 0.01
    assert found[-1] == 0


def test_a_negative_scale_is_refused() -> None:
    with pytest.raises(ValueError, match=r"a scale of -0\.5"):
        SHORT_FLOATS.pack(np.array([1, -0.5], np.float32), np.zeros(2, np.float32), np.ones(2, np.bool_))


@pytest.mark.parametrize(("octaves", "error"), [(1, 2**-7), (3, 2**-6), (6, 2**-6), (13, 2**-5), (28, 2**-4)])
def test_scales_of_eight_bits_are_as_exact_as_their_spread_allows(octaves: int, error: float) -> None:
    scale = np.geomspace(2.0**-octaves, 1, 50).astype(np.float32)
    found, _ = SHORT_FLOATS.rounded(scale, scale, scale > 0)
    assert np.abs(found / scale - 1).max() <= error


def test_biases_of_eight_bits_keep_the_small_ones_beside_a_large_one() -> None:
    bias = np.array([100, *np.linspace(-1, 1, 60)], np.float32)
    _, found = SHORT_FLOATS.rounded(np.abs(bias), bias, bias != 0)
    assert np.abs(found - bias)[1:].max() < 0.05  # 127 even steps would leave .4
    np.testing.assert_allclose(found[0], 100, rtol=1e-4)


def test_channels_without_levels_do_not_cost_the_others_their_exactness() -> None:
    scale = np.append(np.geomspace(0.5, 1, 50), 2.0**-20).astype(np.float32)
    alone, _ = SHORT_FLOATS.rounded(scale[:-1], scale[:-1], scale[:-1] > 0)
    beside, _ = SHORT_FLOATS.rounded(scale, scale, scale > 0.1)
    np.testing.assert_array_equal(beside[:-1], alone)


def test_short_floats_are_those_of_the_format() -> None:
    """kernels/FORMAT.md, by hand: a mantissa of 5 bits for scales, of 4 for biases."""
    data = np.array([0.5, 2.0], "<f4").tobytes() + bytes([5 + 16 * 4, 0, 31, 32, 255, 1, 128 + 17, 127, 128])
    scale, bias = SHORT_FLOATS.unpack(data, 4)
    assert scale.tolist() == [0, 0.5 * 31, 0.5 * 32, 0.5 * 63 * 64]
    assert bias.tolist() == [2, -2 * 17, 2 * 31 * 64, 0]


@pytest.mark.parametrize(("scale_bits", "bias_bits"), [(2, 4), (8, 4), (5, 1), (5, 7), (0, 0), (15, 15)])
def test_other_mantissas_are_refused(scale_bits: int, bias_bits: int) -> None:
    with pytest.raises(FileFormatError, match=f"a mantissa of {scale_bits} bits and biases with one of {bias_bits}"):
        SHORT_FLOATS.unpack(bytes(8) + bytes([scale_bits + 16 * bias_bits]) + bytes(2), 1)
