"""Fake quantisation against its definition, written in exact float32 steps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bitplan.formats import Range
from bitplan.simulate import fake_quantise


def reference(x, scale, zero_point):
    """s (clamp(round(x (1 / s)) + z, 0, 255) - z), every step in float32."""
    scale = np.float32(scale)
    codes = np.rint(x * (np.float32(1) / scale)).astype(np.float64) + zero_point
    return scale * (np.clip(codes, 0, 255) - zero_point).astype(np.float32)


@given(
    values=st.lists(st.floats(-1000, 1000, width=32), min_size=1, max_size=40),
    scale=st.floats(2.0**-10, 10, width=32),
    zero_point=st.integers(0, 255),
)
def test_it_is_the_definition_to_the_bit(values, scale, zero_point):
    x = np.array(values, np.float32)
    found = fake_quantise(torch.from_numpy(x), Range(scale, zero_point)).numpy()
    np.testing.assert_array_equal(found, reference(x, scale, zero_point))


def test_halves_go_to_the_even_neighbour():
    x = torch.tensor([0.5, 1.5, 2.5, -0.5, -1.5])
    assert fake_quantise(x, Range(1.0, 100)).tolist() == [0, 2, 2, 0, -2]


@pytest.mark.parametrize(("zero_point", "low", "high"), [(0, 0.0, 127.5), (255, -127.5, 0.0), (128, -64.0, 63.5)])
def test_values_outside_are_clamped(zero_point, low, high):
    found = fake_quantise(torch.tensor([-1e9, 1e9, float("-inf"), float("inf")]), Range(0.5, zero_point))
    assert found.tolist() == [low, high, low, high]


def test_zero_is_exact_and_twice_is_once():
    x = torch.linspace(-5, 5, 101)
    held = Range(0.037, 77)
    once = fake_quantise(x, held)
    assert torch.equal(fake_quantise(once, held), once)
    assert once[50] == 0


def test_the_argument_stays():
    x = torch.linspace(-5, 5, 11)
    before = x.clone()
    fake_quantise(x, Range(1.0, 3))
    assert torch.equal(x, before)
