"""Scores of policies from single losses and pairs."""

from __future__ import annotations

import numpy as np
import pytest

from bitplan.errors import UsageError
from bitplan.profiles.link import Link
from bitplan.profiles.loss import HASHES, LossProfile
from bitplan.profiles.quadratic import positive_part, predicted_loss, quadratic, score
from bitplan.variant import Variant

INT8, INT4 = Variant("int8"), Variant("int4")
CHOICES = [(layer, variant) for layer in ("a", "b", "c") for variant in (INT8, INT4)]
POLICY = {"a": INT4, "b": INT8, "c": INT4}


def profile(pairs=None, **more) -> LossProfile:
    increases = {
        choice: np.array([value, 3 * value], np.float32)
        for choice, value in zip(CHOICES, (0.1, 0.4, -0.2, 0.5, 0.3, 0.7), strict=True)
    }
    return LossProfile("kl", dict.fromkeys(HASHES, "0"), increases, pairs=pairs, **more)


def random_pairs(seed: int = 0) -> np.ndarray:
    pairs = np.random.default_rng(seed).normal(0, 0.3, (6, 6))
    pairs = pairs + pairs.T
    for first in (0, 2, 4):
        pairs[first : first + 2, first : first + 2] = 0
    return pairs


def test_without_pairs_losses_add_up_and_negative_ones_count_nothing():
    assert score(profile(), quadratic(profile()), POLICY) == pytest.approx(0.8 + 0.0 + 1.4)


def test_pairs_of_a_policy_are_added_once():
    pairs = random_pairs()
    measured = profile(pairs, semidefinite=True)
    expected = 0.8 + 0.0 + 1.4 + pairs[1, 2] + pairs[1, 5] + pairs[2, 5]
    assert score(measured, quadratic(measured), POLICY) == pytest.approx(expected)


def test_measured_pairs_can_never_make_a_score_negative():
    for seed in range(20):
        measured = profile(3 * random_pairs(seed))
        matrix = quadratic(measured)
        assert np.linalg.eigvalsh(matrix).min() > -1e-9
        assert score(measured, matrix, POLICY) > -1e-9
        assert predicted_loss(measured, matrix, POLICY) >= 0


def test_the_positive_part_is_the_nearest_semidefinite_matrix():
    matrix = random_pairs(3)
    nearest = positive_part(matrix)
    random = np.random.default_rng(0)
    for _ in range(50):
        half = random.normal(0, 1, (6, 6))
        other = nearest + 0.1 * (positive_part(half + half.T) - random.random() * nearest)
        assert np.linalg.norm(matrix - nearest) <= np.linalg.norm(matrix - other) + 1e-9


def test_the_link_turns_scores_into_losses():
    measured = profile(link=Link(2.0, 1.0, 1.5))
    assert predicted_loss(measured, quadratic(measured), POLICY) == pytest.approx(Link(2.0, 1.0, 1.5).loss(2.2))


def test_a_choice_without_measurement_is_named():
    with pytest.raises(UsageError, match="'a' as ternary"):
        score(profile(), quadratic(profile()), {"a": Variant("ternary")})
