"""The loss metrics against plain numpy."""

from __future__ import annotations

import numpy as np
import pytest

from bitplan.errors import DataError, UsageError
from bitplan.network import Conv2d, Input, Linear, Network, Node, Softmax
from bitplan.profiles.metrics import effective_metric, increase

IMAGE = Node("x", Input(), (), (4,))
SCORES = Node("scores", Linear(), ("x",), (3,))
CLASSIFIER = Network((IMAGE, SCORES), ("scores",))
SOFTMAXED = Network((IMAGE, SCORES, Node("p", Softmax(), ("scores",), (3,))), ("p",))
DENSE = Network((Node("x", Input(), (), (2, 3, 3)), Node("map", Conv2d((1, 1)), ("x",), (2, 3, 3))), ("map",))
TWO = Network((IMAGE, SCORES, Node("other", Linear(), ("x",), (2,))), ("scores", "other"))


def softmax(scores):
    e = np.exp(scores - scores.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


@pytest.fixture
def scores():
    random = np.random.default_rng(0)
    full = random.normal(0, 3, (10, 3)).astype(np.float32)
    return full, (full + random.normal(0, 1, (10, 3))).astype(np.float32)


def test_kl_equals_its_definition(scores):
    p, q = (softmax(s.astype(np.float64)) for s in scores)
    found = increase(CLASSIFIER, "kl", {"scores": scores[0]})({"scores": scores[1][4:]}, slice(4, 10))
    np.testing.assert_allclose(found, (p * np.log(p / q)).sum(1)[4:], rtol=1e-5)
    assert found.dtype == np.float32


def test_kl_of_equal_outputs_is_zero_and_of_huge_scores_finite(scores):
    measure = increase(CLASSIFIER, "kl", {"scores": 1000 * scores[0]})
    assert np.all(measure({"scores": 1000 * scores[0]}, slice(0, 10)) == 0)
    assert np.all(np.isfinite(measure({"scores": -1000 * scores[0]}, slice(0, 10))))


def test_kl_behind_a_softmax_is_that_of_its_probabilities(scores):
    expected = increase(CLASSIFIER, "kl", {"scores": scores[0]})({"scores": scores[1]}, slice(0, 10))
    p, q = (softmax(s) for s in scores)
    found = increase(SOFTMAXED, "kl", {"p": p})({"p": q}, slice(0, 10))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    certain = np.array([[1, 0, 0]], np.float32)
    assert np.isfinite(increase(SOFTMAXED, "kl", {"p": certain})({"p": certain[:, ::-1]}, slice(0, 1)))


def test_task_loss_is_the_increase_of_the_cross_entropy(scores):
    labels = np.array([0, 1, 2, 0, 1, 2, 0, 1, 2, 0])
    before, after = (-np.log(softmax(s.astype(np.float64)))[np.arange(10), labels] for s in scores)
    found = increase(CLASSIFIER, "task", {"scores": scores[0]}, labels)({"scores": scores[1][2:7]}, slice(2, 7))
    np.testing.assert_allclose(found, (after - before)[2:7], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("labels", "message"), [(None, "needs labels"), ([0, 1], "10 images"), ([3] * 10, "classes 0..2")]
)
def test_labels_that_do_not_fit_are_refused(scores, labels, message):
    with pytest.raises(DataError, match=message):
        increase(CLASSIFIER, "task", {"scores": scores[0]}, None if labels is None else np.array(labels))


def test_networks_that_do_not_classify_use_the_squared_error():
    assert effective_metric(DENSE, "kl") == effective_metric(TWO, "kl") == "squared_error"
    assert effective_metric(CLASSIFIER, "kl") == effective_metric(SOFTMAXED, "kl") == "kl"
    with pytest.raises(UsageError, match="task loss needs one output"):
        effective_metric(TWO, "task")
    with pytest.raises(UsageError, match="'accuracy' is not one of"):
        effective_metric(CLASSIFIER, "accuracy")


def test_squared_error_is_relative_to_the_variance_and_averaged_over_outputs(scores):
    full = {"scores": scores[0], "other": np.array([[0, 2]] * 10, np.float32)}
    changed = {"scores": scores[1], "other": full["other"] + 0.5}
    expected = ((scores[1] - scores[0]) ** 2).mean(1) / scores[0].var() / 2 + 0.25 / 1.0 / 2
    np.testing.assert_allclose(increase(TWO, "kl", full)(changed, slice(0, 10)), expected, rtol=1e-5)
