"""The temperature of losses: no higher than the outputs ask for."""

from __future__ import annotations

import numpy as np
import pytest

from bitplan.profiles.temperature import LEAST_ENTROPY, TEMPERATURES, fitting_temperature, relative_entropy

pytest.importorskip("torch")


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


def test_other_metrics_know_no_temperature(small):
    for metric in ("task", "squared_error"):
        assert fitting_temperature(small.network, metric, {"classifier": scores(small.network, 12.0)}) == 1


def test_relative_entropy_of_even_and_of_certain_rows():
    even = np.full((3, 7), -np.log(7))
    assert relative_entropy(even) == pytest.approx(1)
    certain = np.log(np.maximum(np.eye(7), 1e-300))
    assert relative_entropy(certain) == pytest.approx(0, abs=1e-9)
