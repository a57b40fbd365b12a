"""What every estimator promises."""

from __future__ import annotations

import itertools
import subprocess
import sys

import numpy as np
import pytest

from bitplan.errors import DataError, UsageError
from bitplan.profiles.estimators import ESTIMATORS, estimator_named
from bitplan.profiles.loss import LossProfile
from bitplan.profiles.measure_loss import expected_cost, measure
from bitplan.profiles.quadratic import quadratic
from bitplan.variant import FLOAT32, Variant

pytest.importorskip("torch")

INT8, INT3, INT2, BINARY = (Variant(name) for name in ("int8", "int3", "int2", "binary"))
MENU = (FLOAT32, INT8, INT3, BINARY)


@pytest.mark.parametrize("name", ESTIMATORS)
class TestEvery:
    def test_the_answer_says_where_it_comes_from_and_what_it_took(self, small, profiles, name, menu_of):
        profile = profiles[name]
        cost = expected_cost(small.network, small.weights, small.images, menu_of(small.network, *MENU), name, "kl")
        assert profile.estimator == name
        assert 0 < profile.passes <= cost.passes
        assert (profile.pairs is not None) == (name in ("gram", "clado"))

    def test_fewer_bits_cost_more_and_float32_costs_nothing(self, small, profiles, name):
        for layer in profiles[name].layers:
            losses = [profiles[name].loss(layer, variant) for variant in MENU]
            assert losses == sorted(losses), layer
            assert losses[0] == 0 < losses[-1]

    def test_standard_errors_are_finite(self, profiles, name):
        profile = profiles[name]
        assert all(np.isfinite(profile.standard_error(*choice)) for choice in profile.choices)
        if profile.pairs is not None:
            assert np.all(np.isfinite(profile.pair_errors)) and np.all(profile.pair_errors >= 0)
            assert np.any(profile.pair_errors > 0)

    def test_the_score_is_semidefinite_and_float32_adds_nothing_to_it(self, profiles, name):
        matrix = quadratic(profiles[name])
        assert np.linalg.eigvalsh(matrix).min() > -1e-9 * np.abs(matrix).max()
        for number, (_, variant) in enumerate(profiles[name].choices):
            if variant == FLOAT32:
                assert not np.any(np.abs(matrix[number]) > 1e-9)

    def test_it_comes_back_from_its_file(self, profiles, name, tmp_path):
        profiles[name].save(tmp_path / "loss.arrow")
        again = LossProfile.load(tmp_path / "loss.arrow")
        assert (again.estimator, again.passes) == (name, profiles[name].passes)
        if again.pairs is not None:
            np.testing.assert_array_equal(again.pairs, profiles[name].pairs)
            np.testing.assert_allclose(again.pair_errors, profiles[name].pair_errors, rtol=1e-6)

    def test_an_interrupted_measurement_goes_on_with_the_same_result(self, small, profiles, name, tmp_path, menu_of):
        class Interrupted(Exception):
            pass

        def run(limit):
            calls = itertools.count()

            def report(*_):
                if next(calls) == limit:
                    raise Interrupted

            return measure(
                small.network,
                small.weights,
                small.images,
                menu_of(small.network, *MENU),
                estimator=name,
                batch=16,
                checkpoint=tmp_path / "journal",
                progress=report,
            )

        for limit in (3, 5):
            with pytest.raises(Interrupted):
                run(limit)
        resumed = run(10**9)
        assert resumed.choices == profiles[name].choices
        for choice in resumed.choices:
            np.testing.assert_array_equal(resumed.increases[choice], profiles[name].increases[choice])
        if resumed.pairs is not None:
            np.testing.assert_allclose(resumed.pairs, profiles[name].pairs, rtol=1e-6, atol=1e-12)

    def test_what_is_known_is_not_measured_again(self, small, profiles, name, menu_of):
        seen = []
        again = measure(
            small.network,
            small.weights,
            small.images,
            menu_of(small.network, INT8),
            estimator=name,
            profile=profiles[name],
            progress=lambda *report: seen.append(report),
        )
        assert not seen
        assert again is profiles[name]


def test_an_unknown_estimator_is_named_with_the_known_ones():
    with pytest.raises(UsageError, match=r"'garm'.*did you mean 'gram'"):
        estimator_named("garm")


def test_the_registry_needs_no_torch():
    code = "import sys; import bitplan.profiles.estimators; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_metric_that_an_estimator_cannot_measure_is_refused(small):
    labels = np.zeros(len(small.images), int)
    with pytest.raises(UsageError, match="hessian-trace does not measure the metric task"):
        measure(small.network, small.weights, small.images, {}, estimator="hessian-trace", metric="task", labels=labels)
    with pytest.raises(DataError, match="labels"):
        measure(small.network, small.weights, small.images, {"join": (INT8,)}, estimator="gram", metric="task")


def test_a_profile_of_another_estimator_is_not_taken_over(small, profiles):
    found = measure(
        small.network, small.weights, small.images, {"stem": (INT8,)}, estimator="gram", profile=profiles["separable"]
    )
    assert (found.estimator, len(found.choices)) == ("gram", 1)
