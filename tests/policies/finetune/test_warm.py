"""A trained network as what other policies begin with: kept in a file, realised, trained further."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from bitplan.errors import FileFormatError, UsageError
from bitplan.network import Network
from bitplan.policies.realise import realise
from bitplan.policies.realise.finetune import Settings, finetune
from bitplan.policies.realise.finetune.network import TrainedNetwork
from bitplan.policies.realise.finetune.rules import RULES
from bitplan.policies.realise.recover import recover
from bitplan.policies.realise.steps import recoveries
from bitplan.policies.realise.trained_file import Origin, load_trained, origin_of, save_trained
from bitplan.policies.realise.warm import WarmStart, following
from bitplan.variant import Variant

SETTINGS = Settings(epochs=3, batch=8, augment="none", learning_rate=0.003)
MIXED = ("ternary", "int4", "binary", "apb:kept=0.04", "int2", "float32", "xor:bits=1", "coded:bits=2", "int8")
ORIGIN = Origin("network", "weights", "policy", "calibration", "test", "artifact")


def warm_of(small, names):
    variants = {
        node.name: Variant.parse(names[number % len(names)]) for number, node in enumerate(small.network.layers)
    }
    start = realise(small.network, small.weights, small.images, variants, recoveries=())
    found = finetune(small.network, small.weights, small.images, variants, start, settings=SETTINGS)
    assert found.best_epoch  # else nothing was trained
    return WarmStart(found.realisation.layers, found.realisation.ranges, found.floats)


@pytest.fixture(scope="module")
def warm(small):
    return warm_of(small, ("ternary", "int4", "binary", "int2", "float32", "int8"))


def same_layer(a, b):
    arrays = ("bias", "scale", "levels", "kept_positions", "values", "code")
    return (a.variant, a.numbers) == (b.variant, b.numbers) and all(
        np.array_equal(getattr(a, n), getattr(b, n)) for n in arrays
    )


@pytest.mark.parametrize("names", [MIXED[:6], MIXED[6:]], ids=["first", "second"])
def test_the_file_gives_back_what_was_saved_to_the_last_bit(small, tmp_path, names):
    warm = warm_of(small, names)
    path = tmp_path / "trained.safetensors"
    save_trained(path, warm, ORIGIN)
    found = load_trained(path, small.network)
    assert origin_of(path) == ORIGIN
    assert all(same_layer(found.layers[name], layer) for name, layer in warm.layers.items())
    assert found.ranges == warm.ranges
    assert set(found.floats) == set(warm.floats)
    assert all(np.array_equal(found.floats[name], array) for name, array in warm.floats.items())
    assert found.content_hash == warm.content_hash


def test_damaged_files_and_other_networks_are_refused(small, warm, tmp_path):
    path = tmp_path / "trained.safetensors"
    save_trained(path, warm, ORIGIN)
    nodes = tuple(replace(node, name="head") if node.name == "classifier" else node for node in small.network)
    with pytest.raises(UsageError, match="other layers"):
        load_trained(path, Network(nodes, ("head",), small.network.preprocessing))
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(FileFormatError, match="no trained network"):
        load_trained(path, small.network)


@pytest.mark.parametrize("name", RULES)
def test_floats_are_what_the_levels_are_rounded_from(small, name):
    # one layer with the rule, a few steps of training away from full precision
    text = {"apb": "apb:kept=0.04", "xor": "xor:bits=1", "coded": "coded:bits=2", "codedternary": "codedternary:bits=1"}
    text |= {"apb4": "apb4:kept=0.1", "pruned": "pruned:kept=0.5", "prunedfloat": "prunedfloat:kept=0.5"}
    variant = Variant.parse(text.get(name, name))
    variants = {node.name: Variant("int8") for node in small.network.layers} | {"expand": variant}
    start = realise(small.network, small.weights, small.images, variants, recoveries=())
    found = finetune(small.network, small.weights, small.images, variants, start, settings=SETTINGS)
    floats, layer = found.floats["expand.weight"], found.realisation.layers["expand"].weight
    assert floats.shape == small.weights["expand.weight"].shape
    kept = layer != 0 if name in ("pruned", "prunedfloat") else np.ones(layer.shape, bool)
    correlation = np.corrcoef(floats[kept], layer[kept])[0, 1]
    assert correlation > (0.999 if name in ("float32", "xor", "int8", "prunedfloat") else 0.7)
    np.testing.assert_allclose(
        found.floats["expand.bias"], found.realisation.layers["expand"].bias, rtol=2e-3, atol=1e-3
    )


def test_layers_that_keep_their_variant_are_taken_over_and_others_act_like_the_trained_ones(small, warm):
    variants = warm.variants | {"expand": Variant("int8")}  # int2 before
    held = realise(small.network, small.weights, small.images, variants, recoveries=(), ranges=warm.ranges, warm=warm)
    assert all(same_layer(held.layers[name], layer) for name, layer in warm.layers.items() if name != "expand")
    steps = recoveries(("correct", "reconstruct"))
    found = realise(
        small.network, small.weights, small.images, variants, recoveries=steps, ranges=warm.ranges, warm=warm
    )
    ours, trained, full = (
        layer.reshape(-1)
        for layer in (
            found.layers["expand"].weight,
            warm.layers["expand"].weight,
            small.weights["expand.weight"],
        )
    )
    assert np.square(ours - trained).mean() < np.square(ours - full).mean()


def test_the_same_policy_comes_back_as_it_was_trained(small, warm):
    found = recover(small.network, small.weights, small.images, warm.variants, ("correct", "reconstruct"), warm=warm)
    for name, layer in warm.layers.items():
        assert np.array_equal(found.realisation.layers[name].levels, layer.levels)
        np.testing.assert_allclose(found.realisation.layers[name].scale, layer.scale, rtol=2e-3)


def test_training_goes_on_with_the_weights_that_it_had(small, warm):
    held = {name: dict(by_format) for name, by_format in warm.ranges.items()}
    start = realise(small.network, small.weights, small.images, warm.variants, recoveries=(), ranges=held, warm=warm)
    settings = replace(SETTINGS, normalise=False)
    trained = TrainedNetwork(small.network, small.weights, warm.variants, start, settings, warm)
    for name, layer in trained.realisation().layers.items():
        assert np.array_equal(layer.levels, warm.layers[name].levels)
    for name, array in trained.floats().items():
        np.testing.assert_allclose(array, warm.floats[name], rtol=1e-2, atol=2e-3 * np.abs(warm.floats[name]).max())


def test_floats_follow_a_correction_of_their_layer(warm):
    layer = warm.layers["project"]
    gain = np.linspace(0.5, 2, len(layer.scale)).astype(np.float32)
    other = layer.corrected(gain, layer.bias + 1)
    moved = following(warm.floats, warm.layers, {**warm.layers, "project": other})
    np.testing.assert_allclose(
        moved["project.weight"], warm.floats["project.weight"] * gain.reshape(-1, 1, 1, 1), rtol=2e-3
    )
    assert np.array_equal(moved["project.bias"], other.bias)
    assert np.array_equal(moved["join.weight"], warm.floats["join.weight"])


def test_a_training_that_begins_warm_resumes_to_the_same_bits(small, warm, tmp_path):
    variants = warm.variants | {"expand": Variant("int8")}
    start = realise(small.network, small.weights, small.images, variants, ranges=warm.ranges, warm=warm)
    given = small.network, small.weights, small.images, variants, start
    whole = finetune(*given, settings=SETTINGS, warm=warm)
    path = tmp_path / "finetune.safetensors"

    def interrupt(number, epoch):
        if number == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        finetune(*given, settings=SETTINGS, warm=warm, checkpoint=path, on_epoch=interrupt)
    seen = []
    again = finetune(
        *given, settings=SETTINGS, warm=warm, checkpoint=path, on_epoch=lambda number, epoch: seen.append(number)
    )
    assert seen == [0, 1, 2, 3]
    assert again.history == whole.history
    assert all(same_layer(again.realisation.layers[name], layer) for name, layer in whole.realisation.layers.items())
    # another beginning is another training
    cold = finetune(*given, settings=SETTINGS, checkpoint=path)
    assert cold.history != whole.history
