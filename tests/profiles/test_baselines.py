"""The estimators that pairs are compared with: against plain computations of what they estimate."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bitplan.policies.realise.front import peak_bytes
from bitplan.profiles.estimators.hessian_trace import HessianTrace
from bitplan.profiles.estimators.orthogonality import Orthogonality, kernels, pseudo_importances
from bitplan.profiles.estimators.tempered import TEMPERATURE
from bitplan.profiles.metrics import log_probabilities
from bitplan.simulate import Simulator
from bitplan.variant import Variant

pytest.importorskip("torch")

INT8, INT3, INT2, BINARY = (Variant(name) for name in ("int8", "int3", "int2", "binary"))


class TestTempered:
    def test_it_is_the_divergence_of_softened_outputs(self, small, profiles, logits):
        full = logits(small, {})

        def soft(x):
            p = np.exp(x.astype(np.float64) / TEMPERATURE)
            return p / p.sum(1, keepdims=True)

        before, after = soft(full), soft(logits(small, {"project": BINARY}))
        expected = TEMPERATURE**2 * (before * np.log(before / after)).sum(1)
        found = profiles["tempered"].per_image("project", BINARY)
        np.testing.assert_allclose(found, expected, rtol=5e-3, atol=1e-6)


class TestLittleMemory:
    """Images that do not fit together go through the network in chunks."""

    @pytest.mark.parametrize("method", [HessianTrace(), Orthogonality()], ids=lambda method: type(method).__name__)
    def test_chunks_change_nothing(self, small, method, job_of):
        room = 16 * peak_bytes(Simulator(small.network, small.weights))
        whole = job_of(small, INT8, BINARY, batch=8)
        chunked = replace(whole, memory=room)
        assert method.cost(chunked).passes >= method.cost(whole).passes
        found, expected = method.measure(chunked).increases, method.measure(whole).increases
        for choice, values in expected.items():
            np.testing.assert_allclose(found[choice], values, rtol=1e-2, atol=1e-4 * np.abs(values).max())


class TestHessianTrace:
    def test_the_trace_of_a_linear_layer_is_known(self, small, job_of):
        # of the classifier z = W x + b: tr(J' F J) = ||x||^2 tr(F)
        traces = HessianTrace(probes=200)._traces(
            job_of(small, INT8), [small.network.by_name["classifier"]], None, None
        )
        simulator = Simulator(small.network, small.weights)
        values = simulator.values(small.images, keep=["mean", "classifier"])
        p = np.exp(log_probabilities(values["classifier"].numpy()))
        expected = np.square(values["mean"].numpy()).sum(1) * (1 - np.square(p).sum(1))
        assert traces["classifier"].mean() == pytest.approx(expected.mean(), rel=0.1)


class TestOrthogonality:
    def test_pseudo_values_are_those_of_leaving_images_out(self, small, job_of):
        found = kernels(job_of(small, INT8))
        count = len(small.images)

        def weights(chosen):
            parts = [kernel[np.ix_(chosen, chosen)] for kernel in found]
            norms = [np.sqrt((k * k).sum()) for k in parts]
            similar = np.array(
                [
                    [(a * b).sum() / (x * y) for b, y in zip(parts, norms, strict=True)]
                    for a, x in zip(parts, norms, strict=True)
                ]
            )
            importance = np.exp(-(similar.sum(1) - 1))
            return np.array([importance[i:].mean() for i in range(len(parts))])

        everything = np.arange(count)
        pseudo = pseudo_importances(found)
        for left_out in (0, 7):
            fewer = weights(np.delete(everything, left_out))
            expected = count * weights(everything) - (count - 1) * fewer
            np.testing.assert_allclose(pseudo[:, left_out], expected, rtol=1e-6)
