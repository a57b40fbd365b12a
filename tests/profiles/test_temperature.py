"""The temperature of losses: no higher than the outputs ask for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bitplan.profiles.estimators.gram import observation
from bitplan.profiles.estimators.sketch import output_change
from bitplan.profiles.measure_loss import measure
from bitplan.profiles.metrics import divergence, log_probabilities, softened
from bitplan.profiles.temperature import LEAST_ENTROPY, TEMPERATURES, fitting_temperature, relative_entropy
from bitplan.variant import Variant

pytest.importorskip("torch")

BINARY = Variant("binary")


def scores(network, gap):
    """One class `gap` above the others, which are even."""
    classes = network.by_name["classifier"].shape[0]
    found = np.zeros((40, classes), np.float32)
    found[np.arange(40), np.arange(40) % classes] = gap
    return found


def entropy_of(gap, temperature, classes):
    top = np.exp(gap / temperature)
    p = np.array([top, *np.ones(classes - 1)]) / (top + classes - 1)
    return float(-(p * np.log(p)).sum() / np.log(classes))


@pytest.mark.parametrize("gap", [1.0, 4.0, 6.0, 9.0, 12.0, 40.0])
def test_it_is_the_lowest_at_which_outputs_are_uncertain_enough(small, gap):
    full = scores(small.network, gap)
    enough = [t for t in TEMPERATURES if entropy_of(gap, t, full.shape[1]) >= LEAST_ENTROPY]
    assert fitting_temperature(small.network, "kl", {"classifier": full}) == [*enough, TEMPERATURES[-1]][0]


def test_certain_outputs_are_softened_and_uncertain_ones_are_not(small):
    assert fitting_temperature(small.network, "kl", {"classifier": scores(small.network, 12.0)}) == TEMPERATURES[-1]
    assert fitting_temperature(small.network, "kl", {"classifier": scores(small.network, 0.5)}) == 1


@pytest.fixture
def certain(small, logits):
    """The small network with scores so large that its outputs are certain."""
    weights = {
        name: np.float32(200) * array if name.startswith("classifier.") else array
        for name, array in small.weights.items()
    }
    found = replace(small, weights=weights)
    assert fitting_temperature(found.network, "kl", {"classifier": logits(found, {})}) == 3
    return found


def test_losses_of_certain_outputs_are_measured_at_three(certain, logits):
    given = certain.network, certain.weights, certain.images, {"project": (BINARY,)}
    found = {
        name: measure(*given, estimator=name).per_image("project", BINARY) for name in ("tempered", "gram", "separable")
    }
    outputs = logits(certain, {}), logits(certain, {"project": BINARY})
    before, after = (softened(log_probabilities(x), 3.0) for x in outputs)
    np.testing.assert_allclose(found["tempered"], 9 * divergence(before, after), rtol=5e-3, atol=1e-5)
    np.testing.assert_array_equal(found["tempered"], found["gram"])
    assert not np.allclose(found["tempered"], found["separable"], rtol=0.1)


def test_pairs_beside_the_task_loss_are_softened_too(certain, logits, job_of):
    full = logits(certain, {})
    job = replace(job_of(certain, metric="task"), labels=np.zeros(len(full), np.int64))
    changed, part = {"classifier": 0.9 * full}, slice(0, len(full))
    sketch = observation(job, None, None, {"classifier": full})(changed, part)[:, 1:]
    expected = output_change(certain.network, "kl", {"classifier": full}, 3.0)
    np.testing.assert_array_equal(sketch, expected(changed, part))


def test_other_metrics_know_no_temperature(small):
    for metric in ("task", "squared_error"):
        assert fitting_temperature(small.network, metric, {"classifier": scores(small.network, 12.0)}) == 1


def test_relative_entropy_of_even_and_of_certain_rows():
    even = np.full((3, 7), -np.log(7))
    assert relative_entropy(even) == pytest.approx(1)
    certain = np.log(np.maximum(np.eye(7), 1e-300))
    assert relative_entropy(certain) == pytest.approx(0, abs=1e-9)
