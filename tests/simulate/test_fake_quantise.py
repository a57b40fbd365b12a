"""Fake quantisation against its definition, written in exact float32 steps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bitplan.formats import Range, top_code
from bitplan.simulate import fake_quantise
from bitplan.variant import U1, U2, U4, U8

CODES = (U8, U4, U2, U1)


def reference(x, scale, zero_point, form):
    """scale (q - zero_point), every step in float32."""
    scale = np.float32(scale)
    if form == U1:
        codes = (x > scale * np.float32(0.5 - zero_point)).astype(np.float32)
        return scale * (codes - np.float32(zero_point))
    codes = np.rint(x * (np.float32(1) / scale)).astype(np.float64) + zero_point
    return scale * (np.clip(codes, 0, 2 ** int(form[1:]) - 1) - zero_point).astype(np.float32)


@given(
    values=st.lists(st.floats(-1000, 1000, width=32), min_size=1, max_size=40),
    scale=st.floats(2.0**-10, 10, width=32),
    held=st.one_of(
        st.tuples(st.just(U8), st.integers(0, 255)),
        st.tuples(st.just(U4), st.integers(0, 15)),
        st.tuples(st.just(U2), st.integers(0, 3)),
        st.tuples(st.just(U1), st.sampled_from([0, 0.5, 1])),
    ),
)
def test_it_is_the_definition_to_the_bit(values, scale, held):
    x, (form, zero_point) = np.array(values, np.float32), held
    found = fake_quantise(torch.from_numpy(x), Range(scale, zero_point), form).numpy()
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, reference(x, scale, zero_point, form))


def test_halves_go_to_the_even_neighbour():
    x = torch.tensor([0.5, 1.5, 2.5, -0.5, -1.5])
    assert fake_quantise(x, Range(1.0, 100), U8).tolist() == [0, 2, 2, 0, -2]
    assert fake_quantise(x, Range(1.0, 2), U4).tolist() == [0, 2, 2, 0, -2]


@pytest.mark.parametrize(
    ("form", "zero_point", "low", "high"),
    [
        (U8, 0, 0.0, 127.5),
        (U8, 255, -127.5, 0.0),
        (U8, 128, -64.0, 63.5),
        (U4, 3, -1.5, 6.0),
        (U2, 0, 0.0, 1.5),
        (U1, 0, 0.0, 0.5),
        (U1, 0.5, -0.25, 0.25),
        (U1, 1, -0.5, 0.0),
    ],
)
def test_values_outside_are_clamped(form, zero_point, low, high):
    x = torch.tensor([-1e9, 1e9, float("-inf"), float("inf")])
    assert fake_quantise(x, Range(0.5, zero_point), form).tolist() == [low, high, low, high]


def test_one_bit_tells_signs_or_what_is_above_half_a_step():
    x = torch.tensor([-1.0, -0.5, 0.0, 1e-30, 0.5, 0.50001, 1.0])
    assert fake_quantise(x, Range(1.0, 0.5), U1).tolist() == [-0.5, -0.5, -0.5, 0.5, 0.5, 0.5, 0.5]
    assert fake_quantise(x, Range(1.0, 0), U1).tolist() == [0, 0, 0, 0, 0, 1, 1]
    assert fake_quantise(x, Range(1.0, 1), U1).tolist() == [-1, -1, 0, 0, 0, 0, 0]


@pytest.mark.parametrize("form", CODES)
def test_zero_is_exact_and_twice_is_once(form):
    x = torch.linspace(-5, 5, 101)
    held = Range(0.037, top_code(form) // 3)
    once = fake_quantise(x, held, form)
    assert torch.equal(fake_quantise(once, held, form), once)
    assert once[50] == 0
    assert len(once.unique()) <= top_code(form) + 1


@pytest.mark.parametrize("form", CODES)
def test_the_argument_stays(form):
    x = torch.linspace(-5, 5, 11)
    before = x.clone()
    fake_quantise(x, Range(1.0, 1), form)
    assert torch.equal(x, before)
