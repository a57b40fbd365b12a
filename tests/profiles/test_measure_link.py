"""The link of a profile: random policies of all sizes, carried out and measured on images that recovery did not see."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bitplan.kernels.artifact import layer_bytes
from bitplan.policies.realise import realise
from bitplan.profiles.link import Link
from bitplan.profiles.measure_link import calibrated, random_policies
from bitplan.profiles.measure_loss import measure
from bitplan.profiles.metrics import divergence, log_probabilities
from bitplan.simulate import Simulator
from bitplan.variant import FLOAT32, Variant

pytest.importorskip("torch")

VARIANTS = (FLOAT32, *(Variant(name) for name in ("int8", "int4", "int2", "binary")))


@pytest.fixture(scope="module")
def menu(small):
    return {node.name: VARIANTS for node in small.network.layers}


@pytest.fixture(scope="module")
def profile(small, menu):
    return measure(small.network, small.weights, small.images, menu, estimator="gram")


@pytest.fixture(scope="module")
def found(small, menu, profile):
    return calibrated(small.network, small.weights, small.images, menu, profile, policies=6)


def test_policies_are_spread_over_sizes_and_keep_the_menu(small, menu, profile):
    policies = random_policies(small.network, profile, menu, 8)
    sizes = [
        sum(layer_bytes(small.network, small.network.by_name[name], v) for name, v in policy.items())
        for policy in policies
    ]
    assert (sizes[0], sizes[-1]) == (min(sizes), max(sizes))
    assert sizes[-1] > 2 * sizes[0]
    assert all(v in VARIANTS and v != FLOAT32 for policy in policies for v in policy.values())
    assert policies == random_policies(small.network, profile, menu, 8)
    assert policies != random_policies(small.network, profile, menu, 8, seed=1)


def test_losses_are_those_of_policies_on_images_held_back(small, menu, profile, found):
    policy = random_policies(small.network, profile, menu, 6)[0]
    result = realise(small.network, small.weights, small.images[:30], policy)
    simulator = Simulator(small.network, small.weights)
    full, ours = (
        simulator.outputs(small.images[30:], *arguments)["classifier"].numpy()
        for arguments in ((), (result.layers, result.ranges))
    )
    expected = divergence(log_probabilities(full), log_probabilities(ours)).mean()
    assert found.losses[0] == pytest.approx(expected, rel=1e-3)


def test_calibrated_losses_are_nearer_to_the_measured_ones(found):
    def error(predicted):
        return np.abs(np.log(predicted / found.losses)).mean()

    assert found.profile.link != Link()
    assert error(found.predicted) < error(found.scores)
    assert np.all(found.predicted > 0)
    assert np.all(np.diff(found.predicted[np.argsort(found.scores)]) >= 0)


def test_too_few_policies_leave_the_link_as_it_was(small, menu, profile):
    link = Link(2.0)
    kept = calibrated(small.network, small.weights, small.images, menu, replace(profile, link=link), policies=2)
    assert kept.profile.link == link


def test_an_interrupted_calibration_goes_on_with_the_same_result(small, menu, profile, found, tmp_path):
    class Interrupted(Exception):
        pass

    seen = []

    def stop(done, _total, _text):
        if done == 3:
            raise Interrupted

    options = {"policies": 6, "checkpoint": tmp_path / "journal"}
    with pytest.raises(Interrupted):
        calibrated(small.network, small.weights, small.images, menu, profile, progress=stop, **options)
    lines = (tmp_path / "journal").read_bytes().count(b"\n")
    again = calibrated(
        small.network, small.weights, small.images, menu, profile, progress=lambda *r: seen.append(r), **options
    )
    assert lines == 1 + 3
    np.testing.assert_array_equal(again.losses, found.losses)
    assert again.profile.link == found.profile.link
