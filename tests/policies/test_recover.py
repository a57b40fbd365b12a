"""Recovery by steps: what each does to one layer, to the whole network, and what an interrupted one goes on with."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitplan.encodings import encoding_of, every_variant
from bitplan.encodings.coded import Coded
from bitplan.encodings.xor import Xor
from bitplan.errors import UsageError
from bitplan.network import Conv2d, Input, Linear, Network, Node
from bitplan.policies.realise import calibrate, correct, quantise, realise, reconstruct, recover
from bitplan.policies.realise.moments import InputMoments
from bitplan.policies.realise.rated import rated
from bitplan.policies.realise.reconstruct import aim, rounded
from bitplan.policies.realise.rounding import Problem, spreading
from bitplan.policies.realise.trainable import Trainable
from bitplan.recovery_names import STEPS, steps_named
from bitplan.simulate import Simulator
from bitplan.variant import F32, FLOAT32, Variant

from .subjects import subject_of

torch = pytest.importorskip("torch")

VARIANTS = [variant for variant in every_variant() if variant.activation != F32]
INT2 = Variant("int2")


@pytest.fixture(scope="module")
def simulator(small):
    return Simulator(small.network, small.weights)


@pytest.fixture(scope="module")
def ranges(small, simulator):
    return calibrate(simulator, small.images, batch=16)


class TestReconstruct:
    @pytest.mark.parametrize("name", ["stem", "depthwise", "project", "join", "classifier"])
    @pytest.mark.parametrize("variant", VARIANTS, ids=str)
    def test_the_output_error_never_grows(self, small, simulator, ranges, name, variant):
        subject = subject_of(small.network, simulator, small.images, ranges, name, variant)
        layer = quantise(small.network, subject.node, small.weights, variant)
        new = rounded(InputMoments.of(subject), layer, subject.weight)
        before, after = (variance_of_error(subject, x) for x in (layer, new))
        together = isinstance(encoding_of(variant), Coded | Xor)
        if variant.encoding in ("apb", "apb4", "pruned") or together:
            assert after.sum() <= before.sum() * 1.001
        else:
            assert np.all(after <= before * 1.001 + 1e-9)
        if variant.encoding != "int8" and not together:
            assert after.sum() < before.sum()
        assert len(new.kept_positions) == len(layer.kept_positions)
        packed = encoding_of(variant).pack(new)
        assert len(packed) == encoding_of(variant).size_bytes(new.shape, variant)
        unpacked = encoding_of(variant).unpack(packed, new.shape, variant)
        assert np.array_equal(unpacked.levels, new.levels)
        assert np.array_equal(unpacked.kept_positions, new.kept_positions)
        assert np.array_equal(unpacked.scale, new.scale)

    @settings(max_examples=12)
    @given(
        seed=st.integers(0, 99),
        groups=st.sampled_from([1, 2, 4]),
        kernel=st.sampled_from([(1, 1), (3, 3), (1, 3)]),
        stride=st.integers(1, 2),
        variant=st.sampled_from(VARIANTS),
    )
    def test_moments_are_those_of_the_outputs(self, seed, groups, kernel, stride, variant):
        random = np.random.default_rng(seed)
        padding = (kernel[0] // 2, 0, kernel[1] // 2, kernel[1] // 2)
        height = (7 + padding[0] - kernel[0]) // stride + 1
        width = (7 + 2 * padding[2] - kernel[1]) // stride + 1
        op = Conv2d(kernel, (stride, stride), padding, groups=groups)
        network = Network((Node("x", Input(), (), (4, 7, 7)), Node("y", op, ("x",), (4, height, width))), ("y",))
        weights = {
            "y.weight": random.normal(size=(4, 4 // groups, *kernel)).astype(np.float32),
            "y.bias": random.normal(size=4).astype(np.float32),
        }
        images = random.normal(0.4, 1, (9, 4, 7, 7)).astype(np.float32)
        simulator = Simulator(network, weights)
        subject = subject_of(network, simulator, images, calibrate(simulator, images), "y", variant)
        layer = quantise(network, subject.node, weights, variant)
        moments = InputMoments.of(subject)
        found = moments.error(layer.weight.reshape(moments.cross.shape).astype(np.float64)).reshape(-1)
        wanted = variance_of_error(subject, layer)
        assert np.all(np.abs(found - wanted) <= 1e-3 * wanted + 3e-6 * moments.power.max())

    @pytest.mark.parametrize("variant", ["coded:bits=1.5", "coded:bits=3", "codedternary:bits=1"])
    def test_coded_levels_gain_within_their_rate(self, variant):
        """Inputs with few directions leave the levels a choice: the error falls well below that of the nearest ones."""
        random = np.random.default_rng(2)
        chosen = Variant.parse(variant)
        encoding = encoding_of(chosen)
        inputs = random.normal(size=(400, 24)) @ random.normal(size=(24, 96)) + 0.2 * random.normal(size=(400, 96))
        curvature = (inputs.T @ inputs / 400)[None]
        weight = random.normal(size=(32, 96, 1, 1)).astype(np.float32)
        fresh = encoding.quantise(weight, np.zeros(32, np.float32), chosen)
        problem = Problem(weight.reshape(1, 32, 96).astype(np.float64), curvature, encoding.grid(fresh).to(32, 96))
        found = rated(encoding, problem, fresh)
        before, after = (
            problem.error(x.levels.reshape(1, 32, 96).astype(np.float64), x.scale[None].astype(np.float64)).sum()
            for x in (fresh, found)
        )
        assert after < 0.8 * before
        assert len(encoding.pack(found)) == encoding.size_bytes(found.shape, chosen)

    def test_a_singular_curvature_spreads_errors_all_the_same(self):
        random = np.random.default_rng(4)
        inputs = random.normal(size=(5, 12))
        for curvature in (inputs.T @ inputs, np.zeros((12, 12)), np.ones((12, 12))):
            factor = spreading(curvature[None])
            assert np.all(np.isfinite(factor))
            assert np.all(np.einsum("gkk->gk", factor) > 0)

    def test_float32_comes_back_itself(self, small, simulator, ranges):
        subject = subject_of(small.network, simulator, small.images, ranges, "stem", FLOAT32)
        layer = quantise(small.network, subject.node, small.weights, FLOAT32)
        assert reconstruct(subject, layer) is layer

    @pytest.mark.parametrize("variant", ["binary@u1", "ternary@u2"])
    def test_layers_that_read_few_bits_are_reconstructed(self, small, simulator, variant):
        chosen = Variant.parse(variant)
        ranges = calibrate(simulator, small.images, ("u8", chosen.activation), batch=16)
        subject = subject_of(small.network, simulator, small.images, ranges, "join", chosen)
        layer = correct(subject, quantise(small.network, subject.node, small.weights, chosen))
        assert variance_of_error(subject, reconstruct(subject, layer)).sum() < variance_of_error(subject, layer).sum()

    @pytest.mark.parametrize("variant", ["int4", "int2", "coded:bits=2"])
    @pytest.mark.parametrize("value", [0.3, 10.3, 300.0])
    def test_channels_that_are_constant_do_no_harm(self, variant, value):
        """Their variance is what rounding leaves of it, and must not be taken for information."""
        random = np.random.default_rng(6)
        chosen = Variant.parse(variant)
        network = Network((Node("x", Input(), (), (72,)), Node("y", Linear(), ("x",), (16,))), ("y",))
        images = np.maximum(random.normal(size=(256, 12)) @ random.normal(size=(12, 72)), 0).astype(np.float32)
        images[:, [3, 40]] = [value, 0.7 * value]
        weights = {
            "y.weight": random.normal(0, 0.1, (16, 72)).astype(np.float32),
            "y.bias": np.zeros(16, np.float32),
        }
        simulator = Simulator(network, weights)
        subject = subject_of(network, simulator, images, calibrate(simulator, images), "y", chosen)
        layer = quantise(network, subject.node, weights, chosen)
        new = rounded(InputMoments.of(subject), layer, subject.weight)
        assert variance_of_error(subject, new).sum() < 0.7 * variance_of_error(subject, layer).sum()

    def test_a_dead_channel_and_a_dead_input_do_no_harm(self, small, ranges):
        weights = {name: array.copy() for name, array in small.weights.items()}
        weights["stem.weight"][3] = 0  # its channel is constant: what "depthwise" and "project" read of it too
        simulator = Simulator(small.network, weights)
        for name in ("stem", "depthwise", "project"):
            subject = subject_of(small.network, simulator, small.images, ranges, name, INT2)
            layer = reconstruct(subject, quantise(small.network, subject.node, weights, INT2))
            assert np.all(np.isfinite(layer.scale))
            assert np.all(np.isfinite(layer.bias))


@pytest.mark.parametrize("variant", ["int4", "binary@u2", "binary@u1"])
def test_what_is_tuned_computes_what_the_simulator_does(small, simulator, variant):
    """Padding included, which below a format with a code for zero is one of its levels."""
    chosen = Variant.parse(variant)
    variants = {
        node.name: chosen if node.op.groups == 1 else Variant("int4")
        for node in small.network.layers
        if isinstance(node.op, Conv2d)
    } | {"classifier": Variant("int4")}
    found = realise(small.network, small.weights, small.images, variants)
    trainable = Trainable(simulator, found.layers, found.ranges, dict.fromkeys(found.layers, 1.0))
    ours = trainable.values(small.images, frozenset(["classifier"]))["classifier"].detach()
    theirs = simulator.outputs(small.images, found.layers, found.ranges)["classifier"]
    assert (ours - theirs).abs().max() <= 1e-4 * theirs.abs().max()


def variance_of_error(subject, layer):
    """[out], of what the layer makes before residual and activation."""
    pairs = list(subject.outputs(layer))
    return torch.cat([ours - full for full, ours in pairs], 1).double().var(1, correction=0).numpy()


@pytest.fixture
def few_steps(monkeypatch):
    """Blocks are trained for as long as a test of behaviour needs."""
    monkeypatch.setattr("bitplan.policies.realise.block_rounding.ROUNDS", 3)


@pytest.mark.usefixtures("few_steps")
class TestRecover:
    def test_steps_on_single_layers_lower_the_held_back_loss_of_few_bits(self, small):
        found = recover(small.network, small.weights, small.images, uniform(small, INT2), STEPS)
        losses = {gain.step: gain.held_back_loss for gain in found.gains}
        assert list(losses) == ["rounded", *STEPS]
        assert losses["rounded"] > losses["correct"] > losses["reconstruct"]

    def test_a_step_is_kept_only_if_it_lowers_the_loss(self, small):
        least = np.inf
        for gain in recover(small.network, small.weights, small.images, uniform(small, INT2), STEPS).gains:
            assert gain.kept == (gain.held_back_loss < least)
            least = min(least, gain.held_back_loss)

    def test_a_loss_that_is_no_number_is_never_the_best(self, small, monkeypatch):
        """Neither what has it is kept, nor does it keep what comes behind from being judged."""
        from bitplan.policies.realise import distil

        real, calls = distil.Distance.outputs, []

        def outputs(self, full, changed):
            calls.append(None)
            return torch.tensor(torch.nan) if len(calls) in (1, 3) else real(self, full, changed)

        monkeypatch.setattr(distil.Distance, "outputs", outputs)
        steps = ("equalise", "correct", "reconstruct")
        gains = recover(small.network, small.weights, small.images, uniform(small, INT2), steps).gains
        assert [gain.held_back_loss == np.inf for gain in gains] == [True, False, True, False]
        assert [gain.kept for gain in gains] == [True, True, False, True]

    def test_tuning_passes_over_a_layer_that_no_output_depends_on(self, small):
        """It has no gradient, and interrupted tuning finds its state all the same."""
        nodes = (
            *small.network.nodes[:-2],
            Node("side", Conv2d((1, 1)), ("join",), (4, 6, 6)),
            *small.network.nodes[-2:],
        )
        network = replace(small.network, nodes=nodes)
        weights = small.weights | {
            "side.weight": np.ones((4, 8, 1, 1), np.float32),
            "side.bias": np.ones(4, np.float32),
        }
        variants, steps = {node.name: INT2 for node in network.layers}, ("correct", "tune")
        records = Killed(10**6)
        whole = recover(network, weights, small.images, variants, steps, records=records)
        assert np.array_equal(whole.realisation.layers["side"].shape.count, 32)
        assert recover(network, weights, small.images, variants, steps, records=records).gains == whole.gains

    def test_all_float32_stays_bit_identical(self, small, simulator):
        found = recover(small.network, small.weights, small.images, uniform(small, FLOAT32), STEPS).realisation
        ours = simulator.outputs(small.images, found.layers, found.ranges)["classifier"]
        assert torch.equal(ours, simulator.outputs(small.images)["classifier"])
        assert recover(small.network, small.weights, small.images, uniform(small, FLOAT32), STEPS).gains == ()

    def test_float32_layers_among_others_stay_as_they_were(self, small):
        variants = uniform(small, INT2) | {"project": FLOAT32}
        layer = recover(small.network, small.weights, small.images, variants, STEPS).realisation.layers["project"]
        assert np.array_equal(layer.values.ravel(), small.weights["project.weight"].ravel())
        assert np.array_equal(layer.bias, small.weights["project.bias"])

    def test_tuning_keeps_the_levels(self, small):
        before = recover(small.network, small.weights, small.images, uniform(small, INT2), ("correct",)).realisation
        steps = ("correct", "tune")
        after = recover(small.network, small.weights, small.images, uniform(small, INT2), steps).realisation
        assert after.ranges == before.ranges
        assert all(np.array_equal(after.layers[n].levels, before.layers[n].levels) for n in before.layers)

    @pytest.mark.parametrize("last", [8, 20, 26, 32])  # in a cheap walk, in reconstruction, in blocks, in tuning
    def test_an_interrupted_one_gives_the_same(self, small, last):
        variants = uniform(small, Variant("ternary"))
        whole = recover(small.network, small.weights, small.images, variants, STEPS)
        records = Killed(last)
        with pytest.raises(KeyboardInterrupt):
            recover(small.network, small.weights, small.images, variants, STEPS, records=records)
        records.left = 10**6
        again = recover(small.network, small.weights, small.images, variants, STEPS, records=records)
        assert again.gains == whole.gains
        for name, layer in whole.realisation.layers.items():
            for field in ("levels", "scale", "bias"):
                assert np.array_equal(getattr(again.realisation.layers[name], field), getattr(layer, field))

    @pytest.mark.parametrize(("losses", "best"), [((4, 3, 3.5, 2), 3), ((4, 3, 3.5, 3.2), 1), ((4, 3, 2), 2)])
    def test_reconstruction_to_own_weights_is_tried_where_the_first_is_left_out(self, small, monkeypatch, losses, best):
        judged, left, told, records = [], iter(losses), [], Killed(10**6)

        def distance(simulator, distance, layers, *_):
            judged.append(layers)
            return float(next(left))

        monkeypatch.setattr(sys.modules["bitplan.policies.realise.recover"], "held_back_distance", distance)
        found = recover(
            small.network,
            small.weights,
            small.images,
            uniform(small, INT2),
            ("correct", "reconstruct"),
            records=records,
            watch=lambda step, best: told.append((step, best.layers)),
        )
        names = ["rounded", "correct", "reconstruct", "reconstruct to own weights"][: len(losses)]
        assert [gain.step for gain in found.gains] == names
        assert found.realisation.layers is judged[best]
        assert [step for step, _ in told] == ["rounded", "correct", "reconstruct"]
        assert told[-1][1] is judged[best]
        if len(losses) == 4:
            levels = [np.concatenate([layer.levels.ravel() for layer in layers.values()]) for layers in judged]
            assert not np.array_equal(levels[2], levels[3])

    def test_reconstruction_to_own_weights_aims_at_them(self, small, simulator, ranges):
        subject = subject_of(small.network, simulator, small.images, ranges, "project", INT2)
        target, _ = aim(InputMoments.of(subject), subject.weight, 0.0)
        np.testing.assert_array_equal(target.ravel(), subject.weight.astype(np.float64).ravel())

    def test_too_few_images_to_hold_one_back_are_all_used(self, small):
        found = recover(small.network, small.weights, small.images[:3], uniform(small, INT2), STEPS)
        assert found.gains == ()
        assert set(found.realisation.layers) == {node.name for node in small.network.layers}


class Killed:
    """Records that fail at the `left`-th, as if the process had been killed there."""

    def __init__(self, left):
        self.left, self.records = left, {}

    def add(self, name, values):
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        self.records[name] = values.copy()


def uniform(small, variant):
    return {node.name: variant for node in small.network.layers}


class TestNames:
    def test_presets_and_steps_are_put_in_order(self):
        assert steps_named(["tune", "blocks", "strong", "equalise"]) == STEPS
        assert steps_named(["tune", "fast"]) == ("correct", "tune")
        assert steps_named(["none"]) == ()

    def test_an_unknown_name_is_refused(self):
        with pytest.raises(UsageError, match="did you mean 'reconstruct'"):
            steps_named(["reconstuct"])
