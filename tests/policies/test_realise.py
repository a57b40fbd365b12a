"""Calibration, correction and the whole of realising, on a small network."""

from __future__ import annotations

import importlib.util
from dataclasses import replace

import numpy as np
import pytest

from bitplan.encodings import every_variant
from bitplan.errors import DataError, UsageError
from bitplan.formats import Range, top_code
from bitplan.network import RELU6, Conv2d, Input, Network, Node
from bitplan.policies.realise import calibrate, correct, quantise, realise
from bitplan.policies.realise.correct import LARGEST_GAIN, Moments
from bitplan.policies.realise.front import peak_bytes
from bitplan.policies.realise.range_methods import best_range
from bitplan.policies.realise.spread import Spread
from bitplan.simulate import Simulator, fake_quantise
from bitplan.variant import FLOAT32, Variant

from .subjects import subject_of

torch = pytest.importorskip("torch")

INT8, INT3, BINARY = Variant("int8"), Variant("int3"), Variant("binary")


@pytest.fixture(scope="module")
def simulator(small):
    return Simulator(small.network, small.weights)


@pytest.fixture(scope="module")
def ranges(small, simulator):
    return calibrate(simulator, small.images, batch=16)


class TestCalibrate:
    def test_every_value_has_a_range(self, small, ranges):
        assert set(ranges) == {node.name for node in small.network}

    def test_operations_of_same_range_share_their_inputs(self, ranges):
        assert ranges["slice"]["u8"] is ranges["project"]["u8"]
        assert ranges["pool"]["u8"] is ranges["project"]["u8"]

    def test_the_input_covers_all_that_bytes_can_become(self, small, simulator, ranges):
        dark_images = small.images // 4  # a calibration set that does not use the whole scale
        held = calibrate(simulator, dark_images)["x"]["u8"]
        assert held == ranges["x"]["u8"]
        ends = simulator.preprocess(np.stack([np.zeros((3, 12, 12)), np.full((3, 12, 12), 255)]).astype(np.uint8))
        assert torch.abs(fake_quantise(ends, held, "u8") - ends).max() <= 0.51 * held.scale

    def test_float_inputs_cover_what_occurs(self, small, simulator):
        dark = small.images.astype(np.float32) / 4
        held = calibrate(simulator, dark)["x"]["u8"]
        low = float(simulator.preprocess(dark).min())
        assert held.scale * (0 - held.zero_point) <= low * 0.99

    def test_values_that_are_never_negative_have_zero_point_zero(self, ranges):
        assert all(ranges[name]["u8"].zero_point == 0 for name in ("stem", "depthwise", "mean"))
        assert 0 < ranges["project"]["u8"].zero_point < 255

    def test_clamped_values_do_not_reach_beyond_their_bound(self, ranges):
        assert ranges["depthwise"]["u8"].scale * 255 <= 6 * (1 + 1e-6)

    def test_batches_do_not_matter(self, small, simulator, ranges):
        for name, held in calibrate(simulator, small.images, batch=7).items():
            assert held["u8"].zero_point == ranges[name]["u8"].zero_point
            assert held["u8"].scale == pytest.approx(ranges[name]["u8"].scale, rel=1e-3)

    def test_only_the_formats_that_are_asked_for_are_calibrated(self, small, simulator, ranges):
        assert {tuple(held) for held in ranges.values()} == {("u8",)}
        low = calibrate(simulator, small.images, ("u8", "u1"), batch=16)
        assert set(low) == set(ranges)
        assert {tuple(held) for held in low.values()} == {("u8", "u1")}
        assert all(low[name]["u8"] == ranges[name]["u8"] for name in ranges)
        assert not any(calibrate(simulator, small.images, ()).values())

    def test_below_8_bits_every_value_has_a_range_of_its_own(self, small, simulator):
        low = calibrate(simulator, small.images, ("u4", "u1"))
        values = simulator.values(small.images)
        assert low["pool"]["u4"] != low["project"]["u4"]
        for form in ("u4", "u1"):
            for name in ("x", "stem", "project", "pool", "classifier"):
                value, held = values[name], low[name][form]
                error = float(((fake_quantise(value, held, form) - value) ** 2).mean())
                for factor in (0.8, 1.25):
                    other = replace(held, scale=held.scale * factor)
                    assert error < float(((fake_quantise(value, other, form) - value) ** 2).mean())

    @pytest.mark.parametrize("kind", ["normal", "relu", "outlier", "negative", "narrow", "two signs"])
    @pytest.mark.parametrize("form", ["u8", "u4", "u2", "u1"])
    def test_the_range_is_about_the_best_for_the_squared_error(self, kind, form):
        random = np.random.default_rng(1)
        x = random.normal(0.3, 1, 20_000)
        x = {
            "normal": x,
            "relu": np.maximum(x, 0),
            "outlier": np.append(x, [60.0]),
            "negative": -np.abs(x),
            "narrow": 1e-6 * x,
            "two signs": np.sign(x) * (1 + 0.1 * random.normal(size=20_000)),
        }[kind].astype(np.float32)
        value, top = torch.from_numpy(x), top_code(form)
        spread = spread_of(value)

        def error(held: Range) -> float:
            return float(((fake_quantise(value, held, form) - value) ** 2).mean())

        best = best_range(spread, form)
        low, high = min(x.min(), 0.0), max(x.max(), 0.0)
        others = []
        for low_share in np.linspace(0.2, 1, 9):
            for high_share in np.linspace(0.05, 1, 20):
                scale = max((high * high_share - low * low_share) / top, 1e-12)
                zero_points = [0, 0.5, 1] if form == "u1" else [int(np.clip(round(-low * low_share / scale), 0, top))]
                others += [error(Range(float(scale), zero_point)) for zero_point in zero_points]
        assert error(best) <= 1.05 * min(others)
        if best.zero_point != 0.5:
            assert float(fake_quantise(torch.zeros(1), best, form)) == 0.0

    def test_one_bit_holds_signs_of_values_with_both_and_whether_others_are_large(self):
        x = torch.from_numpy(np.random.default_rng(2).normal(size=20_000).astype(np.float32))
        assert best_range(spread_of(x), "u1").zero_point == 0.5
        assert best_range(spread_of(x), "u1").scale == pytest.approx(2 * float(x.abs().mean()), rel=0.02)
        assert best_range(spread_of(x.relu()), "u1").zero_point == 0
        assert best_range(spread_of(-x.relu()), "u1").zero_point == 1
        mostly_positive = torch.cat([x.abs(), torch.full((5,), -0.01), torch.zeros(20_000)])
        assert best_range(spread_of(mostly_positive), "u1").zero_point == 0

    def test_a_constant_zero_value_gets_some_range(self):
        assert all(best_range(spread_of(torch.zeros(4)), form).zero_point == 0 for form in ("u8", "u4", "u2", "u1"))

    def test_values_that_are_not_finite_are_named(self, small):
        weights = {**small.weights, "project.bias": np.full(8, np.nan, np.float32)}
        with pytest.raises(DataError, match="'project' is not finite"):
            calibrate(Simulator(small.network, weights), small.images)

    def test_no_images_is_an_error(self, small, simulator):
        with pytest.raises(DataError, match="one image or more"):
            calibrate(simulator, small.images[:0])


def spread_of(value):
    spread = Spread()
    spread.extend(value, "x")
    spread.fill(value)
    return spread


class TestCorrect:
    @pytest.mark.parametrize("name", ["stem", "depthwise", "project", "join", "classifier"])
    @pytest.mark.parametrize("variant", [INT3, BINARY, Variant.parse("apb:kept=0.04")], ids=str)
    def test_brings_mean_and_deviation_to_full_precision(self, small, simulator, ranges, name, variant):
        subject = subject_of(small.network, simulator, small.images, ranges, name, variant)
        layer = quantise(small.network, subject.node, small.weights, variant)
        before, after = Moments.of(subject, layer), Moments.of(subject, correct(subject, layer))
        deviation = np.sqrt(after.full / after.count)
        limited = (before.gain() <= 1 / LARGEST_GAIN) | (before.gain() >= LARGEST_GAIN)
        # float16 ratios to the largest scale and bias: a few parts in a thousand
        assert np.abs(after.mean_quantised - after.mean_full).max() <= 4e-3 * np.abs(after.mean_full).max() + 1e-6
        ratio = np.sqrt(after.quantised / after.full)
        assert np.abs(ratio[~limited] - 1).max() <= 2e-3
        assert not limited.all()
        assert np.abs(before.mean_quantised - before.mean_full).max() > 0.01 * deviation.max()

    def test_moments_equal_those_of_numpy(self, small, simulator, ranges):
        subject = subject_of(small.network, simulator, small.images, ranges, "project", INT3)
        layer = quantise(small.network, subject.node, small.weights, INT3)
        pairs = list(subject.outputs(layer))
        full, ours = (np.concatenate([p[i].numpy() for p in pairs], 1).astype(np.float64) for i in (0, 1))
        moments = Moments.of(subject, layer)
        assert moments.count == full.shape[1] == 40 * 144
        np.testing.assert_allclose(moments.mean_full, full.mean(1), atol=1e-6)
        np.testing.assert_allclose(moments.quantised, ours.var(1) * moments.count, rtol=1e-4)
        expected = simulator.values(small.images, keep=["depthwise"])["depthwise"]
        weight = torch.from_numpy(small.weights["project.weight"])
        bare = torch.nn.functional.conv2d(expected, weight, torch.from_numpy(small.weights["project.bias"]))
        np.testing.assert_allclose(full.reshape(8, 40, 12, 12).transpose(1, 0, 2, 3), bare.numpy(), atol=1e-5)

    def test_a_float32_layer_comes_back_itself(self, small, simulator, ranges):
        subject = subject_of(small.network, simulator, small.images, ranges, "stem", FLOAT32)
        layer = quantise(small.network, subject.node, small.weights, FLOAT32)
        assert correct(subject, layer) is layer

    def test_a_dead_channel_keeps_its_scale(self, small, ranges):
        weights = {name: array.copy() for name, array in small.weights.items()}
        weights["stem.weight"][3] = 0
        weights["stem.bias"][3] = 0.25
        simulator = Simulator(small.network, weights)
        example = replace(small, weights=weights)
        for variant in (Variant("ternary"), BINARY):
            layer = quantise(small.network, small.network.by_name["stem"], weights, variant)
            corrected = correct(subject_of(example.network, simulator, example.images, ranges, "stem", variant), layer)
            assert corrected.scale[3] == layer.scale[3] == 0
            assert corrected.bias[3] == pytest.approx(0.25, abs=1e-3)


class TestRealise:
    def test_all_float32_is_bit_identical(self, small, simulator):
        result = realise(small.network, small.weights, small.images, dict.fromkeys(names(small.network), FLOAT32))
        expected = simulator.outputs(small.images)["classifier"]
        found = simulator.outputs(small.images, result.layers, result.ranges)["classifier"]
        assert torch.equal(found, expected)

    def test_float32_layers_behind_quantised_ones_stay_as_they_were(self, small):
        variants = {name: INT3 if name == "stem" else FLOAT32 for name in names(small.network)}
        layers = realise(small.network, small.weights, small.images, variants).layers
        for name in names(small.network)[1:]:
            assert np.array_equal(layers[name].values.ravel(), small.weights[f"{name}.weight"].ravel())
            assert np.array_equal(layers[name].bias, small.weights[f"{name}.bias"])

    def test_each_layer_is_corrected_on_what_the_realised_prefix_delivers(self, small, simulator):
        variants = dict.fromkeys(names(small.network), INT3)
        result = realise(small.network, small.weights, small.images, variants)
        full = simulator.values(small.images, keep=["classifier"])["classifier"]
        ours = simulator.values(small.images, result.layers, result.ranges, ["classifier"])["classifier"]
        np.testing.assert_allclose(ours.mean(0), full.mean(0), atol=3e-3 * float(full.abs().max()))
        np.testing.assert_allclose(ours.std(0), full.std(0), rtol=5e-3)

    @pytest.mark.parametrize("variant", every_variant()[1:], ids=str)
    def test_recovery_helps(self, small, simulator, ranges, variant):
        variants = dict.fromkeys(names(small.network), variant)
        reference = simulator.outputs(small.images)["classifier"]

        def error(**options):
            result = realise(small.network, small.weights, small.images, variants, ranges=ranges, **options)
            return float(
                ((simulator.outputs(small.images, result.layers, ranges)["classifier"] - reference) ** 2).mean()
            )

        assert error() < error(recoveries=())

    def test_what_does_not_fit_into_memory_is_left_out_of_recovery(self, small, simulator, ranges):
        variants = dict.fromkeys(names(small.network), INT3)
        room = 2 * 16 * peak_bytes(simulator)
        some = realise(small.network, small.weights, small.images, variants, ranges=ranges, memory=room)
        same = realise(small.network, small.weights, small.images[:16], variants, ranges=ranges)
        assert all(np.array_equal(some.layers[n].scale, same.layers[n].scale) for n in variants)

    @pytest.mark.parametrize("variant", ["binary@u1", "ternary@u2", "int4@u4", "apb@u1:kept=0.04"])
    def test_low_activations_are_calibrated_and_recovered(self, small, simulator, variant):
        chosen = {name: Variant.parse(variant) for name in names(small.network)} | {"depthwise": INT8}
        result = realise(small.network, small.weights, small.images, chosen)
        form = chosen["join"].activation
        assert all(set(held) == {"u8", form} for held in result.ranges.values())
        full = simulator.values(small.images, keep=["classifier"])["classifier"]
        ours = simulator.values(small.images, result.layers, result.ranges, ["classifier"])["classifier"]
        np.testing.assert_allclose(ours.mean(0), full.mean(0), atol=3e-3 * float(full.abs().max()))
        np.testing.assert_allclose(ours.std(0), full.std(0), rtol=5e-3)

    def test_a_layer_with_groups_cannot_read_less_than_8_bits(self, small):
        variants = dict.fromkeys(names(small.network), Variant("binary", "u2"))
        with pytest.raises(UsageError, match=r"'depthwise' of shape .* cannot be binary@u2"):
            realise(small.network, small.weights, small.images, variants)

    def test_progress_ends_complete(self, small):
        seen = []
        variants = dict.fromkeys(names(small.network), INT8)
        realise(small.network, small.weights, small.images, variants, progress=lambda *report: seen.append(report))
        assert seen[-1][0] == seen[-1][1]
        assert any("depthwise as int8" in text for _, _, text in seen)

    def test_a_missing_layer_and_an_unknown_one_are_named(self, small):
        variants = dict.fromkeys(names(small.network), INT8)
        with pytest.raises(UsageError, match="no layer 'bogus'"):
            realise(small.network, small.weights, small.images, {**variants, "bogus": INT8})
        del variants["join"]
        with pytest.raises(UsageError, match="'join' has no variant"):
            realise(small.network, small.weights, small.images, variants)

    def test_weights_that_are_not_finite_are_named(self, small, ranges):
        weights = {**small.weights, "join.weight": small.weights["join.weight"] * np.float32("inf")}
        variants = dict.fromkeys(names(small.network), INT8)
        with pytest.raises(DataError, match=r"join\.weight"):
            realise(small.network, weights, small.images, variants, ranges=ranges)

    def test_a_missing_range_is_named(self, small, ranges):
        without = {name: held for name, held in ranges.items() if name != "depthwise"}
        with pytest.raises(UsageError, match="'depthwise' is read as u8 but has no range"):
            variants = dict.fromkeys(names(small.network), INT8)
            realise(small.network, small.weights, small.images, variants, ranges=without)

    def test_several_inputs_by_name(self):
        nodes = (
            Node("a", Input(), (), (2, 4, 4)),
            Node("first", Conv2d((1, 1), activation=RELU6), ("a",), (2, 4, 4)),
            Node("b", Input(), (), (2, 4, 4)),
            Node("second", Conv2d((1, 1)), ("b", "first"), (2, 4, 4)),
        )
        network = Network(nodes, ("second",))
        random = np.random.default_rng(2)
        weights = {}
        for name in ("first", "second"):
            weights[f"{name}.weight"] = random.normal(size=(2, 2, 1, 1)).astype(np.float32)
            weights[f"{name}.bias"] = np.zeros(2, np.float32)
        images = {name: random.normal(size=(9, 2, 4, 4)).astype(np.float32) for name in "ab"}
        result = realise(network, weights, images, {"first": INT8, "second": INT8}, batch=4)
        simulator = Simulator(network, weights)
        full = simulator.outputs(images)["second"]
        ours = simulator.outputs(images, result.layers, result.ranges)["second"]
        assert float((full - ours).abs().max()) < 0.05 * float(full.abs().max())
        with pytest.raises(DataError, match="as many for every input"):
            calibrate(simulator, {"a": images["a"], "b": images["b"][:5]})


def names(network):
    return [node.name for node in network.layers]


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # refnets leaves a file to the garbage collector
def test_resnet20_in_8_bits_keeps_its_accuracy(test_data):
    from bitplan.capture import capture
    from bitplan.network import Preprocessing

    spec = importlib.util.spec_from_file_location("refnets", test_data / "refnets.py")
    refnets = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(refnets)
    module, info = refnets.build(str(test_data), "resnet20")
    preprocessing = Preprocessing(tuple(info["mean"]), tuple(info["std"]))
    network, weights = capture(module, torch.zeros(2, 3, 32, 32), preprocessing=preprocessing)
    x, y = refnets.load_images(test_data / "cifar10" / "test.npz")
    images, x, y = x[-64:], x[:500], y[:500]
    result = realise(network, weights, images, dict.fromkeys(names(network), INT8))
    simulator = Simulator(network, weights)
    full = simulator.outputs(x)[network.outputs[0]].argmax(1).numpy()
    ours = simulator.outputs(x, result.layers, result.ranges)[network.outputs[0]].argmax(1).numpy()
    assert (full == y).sum() - (ours == y).sum() <= 4
    assert (full != ours).sum() <= 10
