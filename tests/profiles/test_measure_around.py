"""Losses of choices in a trained network are those of whole runs with the choice in place."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch")

from bitplan.policies.realise import realise
from bitplan.policies.realise.finetune import Settings, finetune
from bitplan.policies.realise.pipeline import code_formats
from bitplan.policies.realise.steps import recoveries
from bitplan.policies.realise.warm import WarmStart
from bitplan.profiles.measure_around import added_up, around_hashes, measure_around
from bitplan.profiles.metrics import increase
from bitplan.simulate import Simulator
from bitplan.variant import FLOAT32, Variant

BINARY, TERNARY, INT2, INT4 = (Variant(name) for name in ("binary", "ternary", "int2", "int4"))
# `join` in float32 changes how the pool before it computes; 4-bit activations have no range in the trained network.
OTHERS = (FLOAT32, Variant("int8"), Variant.parse("int4@u4"), BINARY)


@pytest.fixture(scope="module")
def trained(small):
    """The small network after a few epochs of training under a mixed policy, with ranges for the formats of OTHERS."""
    variants = {node.name: (TERNARY, INT4, INT2)[number % 3] for number, node in enumerate(small.network.layers)}
    start = realise(small.network, small.weights, small.images, variants, recoveries=())
    settings = Settings(epochs=3, batch=8, augment="none", learning_rate=0.003)
    found = finetune(small.network, small.weights, small.images, variants, start, settings=settings)
    assert found.best_epoch  # else nothing was trained
    warm = WarmStart(found.realisation.layers, found.realisation.ranges, found.floats)
    return warm.with_ranges(Simulator(small.network, small.weights), small.images, code_formats(OTHERS))


def losses_of(small, layers, ranges):
    simulator = Simulator(small.network, small.weights)
    full, ours = (
        {name: value.numpy() for name, value in simulator.outputs(small.images, *state).items()}
        for state in ((), (layers, ranges))
    )
    return increase(small.network, "kl", full)(ours, slice(None))


def menu_of(small):
    grouped = small.network.by_name["depthwise"].name
    return {n.name: tuple(v for v in OTHERS if n.name != grouped or v.activation != "u4") for n in small.network.layers}


@pytest.mark.parametrize("recovery", [(), ("reconstruct",)], ids=["none", "reconstruct"])
def test_differences_are_those_of_whole_runs(small, trained, recovery):
    menu = menu_of(small)
    profile = measure_around(small.network, small.weights, small.images, menu, trained, recovery=recovery, batch=16)
    present = losses_of(small, trained.layers, trained.ranges)
    differences = {(name, layer.variant): 0 * present for name, layer in trained.layers.items()}
    for name, variant in [(name, variant) for name, variants in menu.items() for variant in variants]:
        carried = realise(
            small.network,
            small.weights,
            small.images,
            trained.variants | {name: variant},
            ranges=trained.ranges,
            recoveries=recoveries(recovery),
            warm=trained,
        )
        # all but the changed layer as they were trained: `realise` corrects those behind it
        changed = {**trained.layers, name: carried.layers[name]}
        differences[name, variant] = losses_of(small, changed, trained.ranges) - present
    expected = added_up(differences, float(present.mean(dtype=np.float64)))
    assert list(profile.increases) == list(expected)
    for choice, values in expected.items():
        np.testing.assert_allclose(profile.increases[choice], values, rtol=2e-3, atol=2e-5)


def test_the_trained_policy_adds_up_to_its_own_loss(small, trained):
    menu = {name: (variant, BINARY) for name, variant in trained.variants.items()}
    profile = measure_around(small.network, small.weights, small.images, menu, trained)
    total = sum(profile.loss(name, variant) for name, variant in trained.variants.items())
    assert total == pytest.approx(losses_of(small, trained.layers, trained.ranges).mean(), rel=1e-5)
    assert min(profile.loss(*choice) for choice in profile.choices) > -1e-7
    assert profile.scale == "kl"


def test_entries_add_up_to_the_present_loss_plus_differences_with_their_errors():
    a, b, c = (("first", BINARY), ("first", INT4), ("second", INT4))
    steady = {a: np.zeros(4, np.float32), b: np.full(4, -0.1, np.float32), c: np.zeros(4, np.float32)}
    found = {choice: values.mean() for choice, values in added_up(steady, 0.5).items()}
    assert found[a] + found[c] == pytest.approx(0.5)
    assert found[b] + found[c] == pytest.approx(0.4)
    noisy = added_up(steady | {b: np.array([0.1, -0.3, 0.1, -0.3], np.float32)}, 0.5)
    error = 0.2 * np.sqrt(4 / 3) / 2
    assert noisy[b].mean() - noisy[a].mean() == pytest.approx(-0.1 + error)


def test_savings_that_exceed_the_loss_count_less_and_never_make_it_negative():
    choices = {
        (name, variant): np.full(4, change, np.float32)
        for name in ("first", "second")
        for variant, change in ((BINARY, 0.0), (INT4, -0.3), (TERNARY, 0.2))
    }
    found = {choice: values.mean() for choice, values in added_up(choices, 0.4).items()}
    assert found["first", INT4] + found["second", INT4] == pytest.approx(0.0, abs=1e-7)
    assert found["first", BINARY] + found["second", BINARY] == pytest.approx(0.4)
    assert found["first", TERNARY] - found["first", BINARY] == pytest.approx(0.2)


def test_an_interrupted_measurement_goes_on_with_the_same_result(small, trained, tmp_path):
    menu = {name: (variant, BINARY, INT4) for name, variant in trained.variants.items()}
    given = small.network, small.weights, small.images, menu, trained
    whole = measure_around(*given)
    journal = tmp_path / "around.journal"

    def interrupt(done, total, text):
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure_around(*given, checkpoint=journal, progress=interrupt)
    seen = []
    again = measure_around(*given, checkpoint=journal, progress=lambda done, total, text: seen.append(done))
    assert seen[0] == 5
    assert list(again.increases) == list(whole.increases)
    assert all(np.array_equal(again.increases[choice], whole.increases[choice]) for choice in whole.increases)


def test_another_trained_network_is_another_measurement(small, trained):
    given = small.network, small.weights, small.images
    other = replace(trained, floats={name: 2 * array for name, array in trained.floats.items()})
    before, after = around_hashes(*given, trained), around_hashes(*given, other)
    assert {name for name in before if before[name] != after[name]} == {"weights"}
