"""The link from scores to losses."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bitplan.profiles.link import STEEPEST, Link, fit_link

links = st.builds(Link, st.floats(0.01, 100), st.floats(0.2, 3), st.floats(0.1, 50) | st.just(float("inf")))


@given(links, st.floats(0, 20), st.floats(0, 20))
def test_losses_rise_from_zero_and_stay_below_the_ceiling(link, one, other):
    low, high = sorted((one, other))
    assert 0 <= link.loss(low) <= link.loss(high) <= link.ceiling
    assert link.loss(-1.0) == link.loss(0.0) == 0


@given(links, st.floats(0, 0.99))
def test_the_score_of_a_loss_is_its_inverse(link, share):
    loss = share * min(link.ceiling, 10.0)
    assert link.loss(link.score(loss)) == pytest.approx(loss, rel=1e-6, abs=1e-12)


def test_a_loss_beyond_the_ceiling_is_never_reached():
    assert Link(1, 1, 2.0).score(2.0) == float("inf")


def test_the_default_changes_nothing():
    assert Link().loss(0.3) == Link().score(0.3) == pytest.approx(0.3)


positive = st.floats(0, allow_infinity=False, exclude_min=True)
any_link = st.builds(Link, positive, positive, st.floats(0, exclude_min=True))


@given(any_link, st.floats(allow_nan=False), st.floats(allow_nan=False))
@example(Link(1.0, 1e13), 2.0, 3.0)
@example(Link(1e30, 8.0), 1e300, -1.0)
@example(Link(1.0, 2.0, 1e-300), 1e200, 1e-200)
def test_losses_of_any_link_are_finite_monotone_and_never_negative(link, one, other):
    low, high = sorted((one, other))
    assert 0 <= link.loss(low) <= link.loss(high) < float("inf")


@given(any_link, st.floats(0, allow_nan=False), st.floats(0, allow_nan=False))
@example(Link(1.0, 1e-13), 2.0, 0.5)
@example(Link(1e-30, 0.125), 1e300, 1.0)
@example(Link(1.0, 5e-324, 2.0), 1.5, 0.5)
def test_scores_of_any_loss_are_monotone_and_never_negative(link, one, other):
    low, high = sorted((one, other))
    assert 0 <= link.score(low) <= link.score(high)


@given(
    st.lists(
        st.tuples(st.floats(0, 1e300), st.floats(0, 1e300)), min_size=3, max_size=8, unique_by=lambda pair: pair[0]
    )
)
@example([(1e-12, 1.0), (1.0, 1.0), (1e300, 1.0)])
@example([(1.0, 1e-12), (1.0001, 1e300), (1.0002, 1.0)])
@settings(max_examples=15)
def test_a_link_of_any_policies_predicts_sound_losses(policies):
    scores, losses = map(list, zip(*policies, strict=True))
    try:
        link = fit_link(scores, losses)
    except ValueError:  # scores that count as the same
        return
    predicted = [link.loss(score) for score in sorted([0.0, *scores, 1e308])]
    assert predicted[0] == 0
    assert predicted == sorted(predicted)
    assert np.all(np.isfinite(predicted))
    assert 1 / STEEPEST * 0.999 <= link.power <= STEEPEST * 1.001


def test_losses_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="finite"):
        fit_link([1.0, 2.0, 3.0], [1.0, float("inf"), 2.0])


@pytest.mark.parametrize("true", [Link(2.0, 1.0, 3.0), Link(0.5, 1.4, 2.0), Link(1.3, 0.9)])
def test_a_link_is_found_again_from_noisy_policies(true):
    random = np.random.default_rng(1)
    scores = np.exp(random.uniform(-4, 1.5, 24))
    losses = np.array([true.loss(score) for score in scores]) * np.exp(random.normal(0, 0.03, 24))
    found = fit_link(scores, losses)
    for score in np.exp(np.linspace(-3.5, 1.2, 9)):
        assert found.loss(score) == pytest.approx(true.loss(score), rel=0.12)


def test_too_few_policies_are_refused():
    with pytest.raises(ValueError, match="three policies"):
        fit_link([1.0, 1.0, 2.0], [1.0, 1.0, 2.0])


@pytest.mark.parametrize("wrong", [(0.0, 1.0, 1.0), (1.0, -1.0, 1.0), (1.0, 1.0, 0.0), (float("inf"), 1.0, 1.0)])
def test_a_link_must_rise(wrong):
    with pytest.raises(ValueError, match="no rising function"):
        Link(*wrong)
