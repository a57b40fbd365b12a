"""XOR-coded signs: exact for any mask, any signs and any network; Viterbi finds the fewest patches there can be."""

from __future__ import annotations

import numpy as np
import pytest
from coders.xor_slices import XorSlices, best_slices
from hypothesis import given, settings
from hypothesis import strategies as st


def random_signs(count: int, density: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.random(count) < 0.5, rng.random(count) < density


def patches(coder: XorSlices, signs: np.ndarray, mask: np.ndarray) -> int:
    return len(coder.encode(signs, mask)[1])


@settings(max_examples=80, deadline=None)
@given(st.data(), st.booleans(), st.integers(1, 40), st.integers(0, 9), st.floats(0, 1))
def test_any_signs_come_back(data: st.DataObject, register: bool, outputs: int, seed: int, density: float) -> None:
    inputs = data.draw(st.integers(1, 5 if register else 64))
    signs, mask = random_signs(data.draw(st.integers(1, 300)), density, seed)
    coder = XorSlices(inputs, outputs, register, seed)
    words, wrong = coder.encode(signs, mask)
    assert np.all(words >> np.uint64(inputs - 1) <= 1)
    np.testing.assert_array_equal(coder.decode(words, wrong, mask), signs[mask])


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 6), st.integers(1, 24), st.integers(0, 99))
def test_viterbi_leaves_no_more_patches_than_any_other_words(inputs: int, outputs: int, seed: int) -> None:
    signs, mask = random_signs(3 * outputs, 0.5, seed)
    coder = XorSlices(min(inputs, 3), outputs, True, seed)
    best = patches(coder, signs, mask)
    for number in range(8**3):  # all words of three slices
        words = np.array([number % 8, number // 8 % 8, number // 64], np.uint64) & np.uint64((1 << coder.inputs) - 1)
        assert best <= (coder._unfold(words).ravel() ^ signs)[mask].sum()


@pytest.mark.parametrize(("inputs", "outputs"), [(4, 30), (6, 50), (8, 72)])
def test_at_one_rate_viterbi_beats_elimination(inputs: int, outputs: int) -> None:
    signs, mask = random_signs(20_000, 0.1, inputs)
    assert patches(XorSlices(inputs, outputs, True), signs, mask) < patches(XorSlices(inputs, outputs), signs, mask)


def test_elimination_matches_all_signs_that_are_independent() -> None:
    signs, mask = random_signs(6000, 0.09, 1)
    assert patches(XorSlices(60, 200), signs, mask) < 5  # 18 equations a slice for 60 unknowns
    assert patches(XorSlices(60, 60), signs, np.ones(6000, bool)) < 200  # a random matrix lacks one or two in rank


def test_the_rate_is_the_simulated_one() -> None:
    """At 91 % pruned words of 20 bits cost about 0.137 bits per weight, of 40 about 0.12 (the least possible is 0.09)."""
    signs, mask = random_signs(40_000, 0.09, 2)
    for inputs, most in ((20, 0.142), (40, 0.128)):
        coder = best_slices(signs, mask, inputs)
        assert coder.stored_bits(*coder.encode(signs, mask), int(mask.sum())) / len(signs) < most


@pytest.mark.parametrize(
    ("inputs", "outputs", "register"), [(0, 8, False), (65, 80, False), (9, 80, True), (8, 0, False)]
)
def test_impossible_networks_are_refused(inputs: int, outputs: int, register: bool) -> None:
    with pytest.raises(ValueError, match="expected 1 to"):
        XorSlices(inputs, outputs, register)
