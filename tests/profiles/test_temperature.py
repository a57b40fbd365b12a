"""The temperature of losses: outputs are softened, certain or not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bitplan.profiles.estimators.gram import observation
from bitplan.profiles.estimators.sketch import output_change
from bitplan.profiles.measure_loss import measure
from bitplan.profiles.metrics import divergence, log_probabilities, softened
from bitplan.variant import Variant

pytest.importorskip("torch")

BINARY = Variant("binary")


@pytest.fixture(params=[1, 200], ids=["uncertain", "certain"])
def scaled(request, small):
    """The small network, and one with scores so large that its outputs are certain."""
    factor = np.float32(request.param)
    weights = {
        name: factor * array if name.startswith("classifier.") else array for name, array in small.weights.items()
    }
    return replace(small, weights=weights)


def test_losses_are_measured_at_three(scaled, logits):
    given = scaled.network, scaled.weights, scaled.images, {"project": (BINARY,)}
    found = {
        name: measure(*given, estimator=name).per_image("project", BINARY) for name in ("tempered", "gram", "separable")
    }
    outputs = logits(scaled, {}), logits(scaled, {"project": BINARY})
    before, after = (softened(log_probabilities(x), 3.0) for x in outputs)
    np.testing.assert_allclose(found["tempered"], 9 * divergence(before, after), rtol=5e-3, atol=1e-5)
    np.testing.assert_array_equal(found["tempered"], found["gram"])


def test_pairs_beside_the_task_loss_are_softened_too(scaled, logits, job_of):
    full = logits(scaled, {})
    job = replace(job_of(scaled, metric="task"), labels=np.zeros(len(full), np.int64))
    changed, part = {"classifier": 0.9 * full}, slice(0, len(full))
    sketch = observation(job, 3.0, 1.0, {"classifier": full})(changed, part)[:, 1:]
    expected = output_change(scaled.network, "kl", {"classifier": full}, 3.0)
    np.testing.assert_array_equal(sketch, expected(changed, part))
