"""Correlations of the changes of outputs: against a plain computation of what they estimate."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from bitplan.profiles.estimators.gram import correlated
from bitplan.profiles.estimators.sketch import DIMENSIONS, output_change
from bitplan.profiles.estimators.tempered import TEMPERATURE
from bitplan.profiles.metrics import divergence, increase, log_probabilities
from bitplan.variant import Variant

pytest.importorskip("torch")

INT8, INT3, INT2, BINARY = (Variant(name) for name in ("int8", "int3", "int2", "binary"))


class TestGram:
    def test_single_losses_are_those_of_tempered(self, profiles):
        for choice in profiles["gram"].choices:
            np.testing.assert_array_equal(profiles["gram"].increases[choice], profiles["tempered"].increases[choice])

    def test_pairs_are_correlations_of_changes_of_logits(self, small, profiles, logits):
        profile = profiles["gram"]
        full = logits(small, {}).astype(np.float64)
        choices = [(layer, variant) for layer in ("stem", "project", "classifier") for variant in (INT3, BINARY)]
        changes = {choice: logits(small, dict([choice])).astype(np.float64) - full for choice in choices}
        p = np.exp(full / TEMPERATURE)
        p /= p.sum(1, keepdims=True)

        def product(a, b):
            # dz_i' (diag(p) - p p') dz_j, averaged over images
            fisher = np.einsum("nc,nc,nc->n", a, p, b) - (p * a).sum(1) * (p * b).sum(1)
            return fisher.mean()

        for one, other in itertools.combinations(choices, 2):
            a, b = changes[one], changes[other]
            correlation = product(a, b) / np.sqrt(product(a, a) * product(b, b))
            expected = 2 * np.sqrt(profile.loss(*one) * profile.loss(*other)) * correlation
            found = profile.pairs[profile.number(*one), profile.number(*other)]
            assert found == pytest.approx(expected, rel=2e-3, abs=1e-6), (one, other)

    def test_the_standard_error_shrinks_as_images_grow(self):
        random = np.random.default_rng(0)
        vectors = random.normal(0, 1, (3, 4000, 4)).astype(np.float32) + np.float32(0.5)
        few, many = (correlated(np.ones(3), vectors[:, :n])[1][0, 1] for n in (250, 4000))
        assert few / many == pytest.approx(4, rel=0.2)

    def test_the_standard_error_is_that_of_repeated_samples(self):
        random = np.random.default_rng(1)
        pairs = []
        for _ in range(200):
            vectors = (random.normal(0, 1, (2, 100, 4)) + 0.5).astype(np.float32)
            products = (vectors[0] * vectors[1]).sum(1)
            pairs.append((products.mean(), correlated(np.full(2, 1.0), vectors)))
        spread = np.std([mean for mean, _ in pairs])
        stated = [errors[0, 1] / values[0, 1] * mean for mean, (values, errors) in pairs]
        assert np.median(stated) == pytest.approx(spread, rel=0.2)

    def test_half_the_square_of_a_small_change_is_its_divergence(self, small, logits):
        full = logits(small, {})
        change = np.random.default_rng(0).normal(0, 0.01, full.shape).astype(np.float32)
        part = slice(0, len(full))
        vectors = output_change(small.network, "kl", {"classifier": full})({"classifier": full + change}, part)
        expected = divergence(log_probabilities(full), log_probabilities(full + change))
        np.testing.assert_allclose(np.square(vectors).sum(1) / 2, expected, rtol=0.1, atol=1e-7)

    def test_of_squared_errors_it_is_exact(self, small, logits):
        full = {"classifier": logits(small, {})}
        changed = {"classifier": logits(small, {"join": BINARY})}
        part = slice(0, len(small.images))
        vectors = output_change(small.network, "squared_error", full)(changed, part)
        expected = increase(small.network, "squared_error", full)(changed, part)
        np.testing.assert_allclose(np.square(vectors).sum(1) / 2, expected, rtol=1e-5)

    def test_sketches_of_many_numbers_keep_inner_products(self, small):
        random = np.random.default_rng(0)
        images, length = 600, 1000
        full = {"classifier": np.zeros((images, length), np.float32)}
        sketch = output_change(small.network, "squared_error", {"classifier": random.normal(0, 1, (images, length))})
        a, b = random.normal(0, 1, (2, images, length))
        b = 0.6 * a + 0.8 * b
        found = [sketch({"classifier": full["classifier"] + x}, slice(0, images)) for x in (a, b)]
        zero = sketch(full, slice(0, images))
        assert zero.shape == (images, DIMENSIONS)
        u, v = found[0] - zero, found[1] - zero
        correlation = (u * v).sum() / np.sqrt((u * u).sum() * (v * v).sum())
        assert correlation == pytest.approx(0.6, abs=4 / np.sqrt(DIMENSIONS * images))
