"""Rounding to a grid under a curvature: grids, error feedback and descent, against searches over all levels."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bitplan.encodings import encoding_of, every_variant
from bitplan.encodings.coded import Coded
from bitplan.encodings.grid import Grid
from bitplan.encodings.xor import Xor
from bitplan.policies.realise.rounding import Problem, descend, error_feedback
from bitplan.variant import F32

VARIANTS = [variant for variant in every_variant() if variant.activation != F32]


def problem_of(random, groups, rows, columns, grid):
    x = random.normal(size=(groups, 4 * columns, columns)) @ random.normal(size=(groups, columns, columns))
    return Problem(random.normal(size=(groups, rows, columns)), x.transpose(0, 2, 1) @ x / (4 * columns), grid)


class TestGrid:
    @pytest.mark.parametrize("variant", VARIANTS, ids=str)
    def test_holds_every_level_that_the_encoding_gives_and_packs_all_of_its_own(self, variant):
        random = np.random.default_rng(0)
        layer = encoding_of(variant).quantise(
            random.normal(size=(6, 5, 3, 3)).astype(np.float32), np.zeros(6, np.float32), variant
        )
        grid = encoding_of(variant).grid(layer).to(6, 45)
        assert np.array_equal(grid.nearest(layer.levels.reshape(6, 45)), layer.levels.reshape(6, 45))
        if isinstance(encoding_of(variant), Coded | Xor):
            return  # these code levels together
        ends = np.where(random.random((6, 45)) < 0.5, grid.lowest, grid.highest)
        other = replace(layer, levels=ends.reshape(layer.levels.shape).astype(np.int8))
        packed = encoding_of(variant).pack(other)
        assert len(packed) == encoding_of(variant).size_bytes(layer.shape, variant)
        assert np.array_equal(encoding_of(variant).unpack(packed, layer.shape, variant).levels, other.levels)

    def test_nearest_is_that_of_a_search_over_all_levels(self):
        ratios = np.random.default_rng(1).normal(0, 4, (1, 200))
        for levels in ([-1, 0, 1], [-1, 1], [-3, -1, 1, 3], list(range(-127, 128))):
            grid = Grid.of(levels[0], levels[1] - levels[0], levels[-1]).to(1, 200)
            nearest = np.array(levels)[np.abs(ratios[0][:, None] - levels).argmin(1)]
            assert np.array_equal(grid.nearest(ratios)[0], nearest)


class TestRounding:
    @pytest.mark.parametrize("levels", [(-1, 2, 1), (-1, 1, 1), (-3, 2, 3)])
    def test_comes_near_the_best_of_all_codes(self, levels):
        """Over many small problems: the mean error is within 10 % of brute force, nearest rounding is far above it."""
        random = np.random.default_rng(3)
        choices = np.array(list(product(range(levels[0], levels[2] + 1, levels[1]), repeat=5)), np.float64)
        best = found = nearest = 0.0
        for _ in range(12):
            problem = problem_of(random, 1, 4, 5, Grid.of(*levels).to(4, 5))
            scale = np.full((1, 4), 0.8)
            away = 0.8 * choices[:, None, :] - problem.target[0]
            best += ((away @ problem.curvature[0]) * away).sum(2).min(0).sum()
            candidates = [problem.grid.nearest(problem.target[0] / 0.8)[None], error_feedback(problem, scale)]
            nearest += problem.error(candidates[0], scale).sum()
            free = [descend(problem, start, scale, 20) for start in candidates]
            fixed = [problem.error(start, scale) for start in candidates]
            found += np.minimum(*fixed).sum()
            for before, (after, scales) in zip(fixed, free, strict=True):
                assert np.all(problem.error(after, scales) <= before * (1 + 1e-9))
        assert best <= found < nearest

    @settings(max_examples=20)
    @example(seed=305, groups=1, rows=2, columns=3)  # levels that suit the first scale and not the one fitted to them
    @given(seed=st.integers(0, 1000), groups=st.integers(1, 3), rows=st.integers(1, 4), columns=st.integers(1, 9))
    def test_descent_never_raises_an_error_and_ends_where_no_single_level_can_be_bettered(
        self, seed, groups, rows, columns
    ):
        random = np.random.default_rng(seed)
        problem = problem_of(random, groups, rows, columns, Grid.of(-3, 2, 3).to(groups * rows, columns))
        start = random.choice([-3.0, -1.0, 1.0, 3.0], (groups, rows, columns))
        scale = random.uniform(0.2, 1.5, (groups, rows))
        levels, fitted = descend(problem, start, scale, 200)
        assert np.all(problem.error(levels, fitted) <= problem.error(start, scale) * (1 + 1e-9))
        error = problem.error(levels, fitted)
        for column in range(columns):
            for level in (-3, -1, 1, 3):
                other = levels.copy()
                other[:, :, column] = level
                assert np.all(problem.error(other, fitted) >= error * (1 - 1e-6) - 1e-12)

    def test_blocks_do_not_matter(self, monkeypatch):
        random = np.random.default_rng(5)
        problem = problem_of(random, 2, 3, 20, Grid.of(-1, 1, 1).to(6, 20))
        scale = np.full((2, 3), 0.7)
        whole = error_feedback(problem, scale)
        descended = descend(problem, whole, scale, 3)
        monkeypatch.setattr("bitplan.policies.realise.rounding.BLOCK", 7)
        assert np.array_equal(error_feedback(problem, scale), whole)
        for ours, theirs in zip(descend(problem, whole, scale, 3), descended, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-9)
