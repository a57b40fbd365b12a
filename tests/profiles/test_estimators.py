"""What every estimator promises, and each of them against a plain computation of what it estimates."""

from __future__ import annotations

import itertools
import runpy
import signal
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from bitplan.errors import DataError, UsageError
from bitplan.formats import derive_formats
from bitplan.network import RELU, AveragePool, Conv2d, Input, Linear, Mean, Network, Node
from bitplan.policies.realise import realise
from bitplan.policies.realise.front import peak_bytes
from bitplan.profiles.estimators import ESTIMATORS, estimator_named
from bitplan.profiles.estimators.clado import Clado, matter, pairs_cost
from bitplan.profiles.estimators.gram import correlated
from bitplan.profiles.estimators.hessian_trace import HessianTrace
from bitplan.profiles.estimators.orthogonality import Orthogonality, kernels, pseudo_importances
from bitplan.profiles.estimators.sketch import DIMENSIONS, output_change
from bitplan.profiles.estimators.tempered import TEMPERATURE
from bitplan.profiles.loss import LossProfile
from bitplan.profiles.loss_walk import Job
from bitplan.profiles.measure_loss import expected_cost, measure
from bitplan.profiles.metrics import divergence, increase, log_probabilities
from bitplan.profiles.quadratic import quadratic
from bitplan.simulate import Simulator
from bitplan.variant import FLOAT32, Variant

pytest.importorskip("torch")

INT8, INT3, INT2, BINARY = (Variant(name) for name in ("int8", "int3", "int2", "binary"))
MENU = (FLOAT32, INT8, INT3, BINARY)


def menu_of(network, *variants):
    return {node.name: variants for node in network.layers}


def job_of(small, *variants, batch=16, metric="kl"):
    choices = frozenset((node.name, variant) for node in small.network.layers for variant in variants)
    return Job(small.network, small.weights, small.images, choices, metric, None, batch, 1 << 30)


@pytest.fixture(scope="module")
def profiles(small):
    return {
        name: measure(
            small.network, small.weights, small.images, menu_of(small.network, *MENU), estimator=name, batch=16
        )
        for name in ESTIMATORS
    }


def logits(small, variants, recovered=None):
    """The network's outputs with these variants, every layer recovered as it is alone."""
    layers, ranges = {}, {}
    for name, variant in variants.items():
        alone = {node.name: variant if node.name == name else FLOAT32 for node in small.network.layers}
        result = realise(small.network, small.weights, small.images, alone, batch=16)
        layers[name], ranges = result.layers[name], result.ranges
    return Simulator(small.network, small.weights).outputs(small.images, layers, ranges)["classifier"].numpy()


@pytest.mark.parametrize("name", ESTIMATORS)
class TestEvery:
    def test_the_answer_says_where_it_comes_from_and_what_it_took(self, small, profiles, name):
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

    def test_an_interrupted_measurement_goes_on_with_the_same_result(self, small, profiles, name, tmp_path):
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

    def test_what_is_known_is_not_measured_again(self, small, profiles, name):
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


class TestGram:
    def test_single_losses_are_those_of_tempered(self, profiles):
        for choice in profiles["gram"].choices:
            np.testing.assert_array_equal(profiles["gram"].increases[choice], profiles["tempered"].increases[choice])

    def test_pairs_are_correlations_of_changes_of_logits(self, small, profiles):
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

    def test_half_the_square_of_a_small_change_is_its_divergence(self, small):
        full = logits(small, {})
        change = np.random.default_rng(0).normal(0, 0.01, full.shape).astype(np.float32)
        part = slice(0, len(full))
        vectors = output_change(small.network, "kl", {"classifier": full})({"classifier": full + change}, part)
        expected = divergence(log_probabilities(full), log_probabilities(full + change))
        np.testing.assert_allclose(np.square(vectors).sum(1) / 2, expected, rtol=0.1, atol=1e-7)

    def test_of_squared_errors_it_is_exact(self, small):
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


@pytest.fixture(scope="module")
def every(small):
    """All pairs by evaluation, and the choices in their order."""
    measured = Clado(negligible=0).measure(job_of(small, INT8, INT3, BINARY))
    return measured, list(measured.increases)


class TestTempered:
    def test_it_is_the_divergence_of_softened_outputs(self, small, profiles):
        def soft(x):
            p = np.exp(x.astype(np.float64) / TEMPERATURE)
            return p / p.sum(1, keepdims=True)

        before, after = soft(logits(small, {})), soft(logits(small, {"project": BINARY}))
        expected = TEMPERATURE**2 * (before * np.log(before / after)).sum(1)
        found = profiles["tempered"].per_image("project", BINARY)
        np.testing.assert_allclose(found, expected, rtol=5e-3, atol=1e-6)


class TestClado:
    PAIRS = (
        (("stem", BINARY), ("depthwise", INT3)),
        (("project", INT3), ("join", BINARY)),
        (("expand", BINARY), ("join", INT3)),
        (("depthwise", BINARY), ("classifier", BINARY)),
    )

    @pytest.mark.parametrize("one, other", PAIRS)
    def test_a_pair_is_what_both_cost_beyond_each(self, small, every, one, other):
        measured, choices = every
        part = slice(0, len(small.images))
        loss = increase(small.network, "kl", {"classifier": logits(small, {})})
        both = loss({"classifier": logits(small, dict([one, other]))}, part)
        beyond = both - measured.increases[one] - measured.increases[other]
        at = choices.index(one), choices.index(other)
        assert measured.pairs[at] == measured.pairs[at[::-1]]
        assert measured.pairs[at] == pytest.approx(beyond.mean(), rel=5e-3, abs=2e-5)
        error = beyond.std(ddof=1) / np.sqrt(len(beyond))
        assert measured.pair_errors[at] == pytest.approx(error, rel=0.02, abs=2e-5)

    def test_two_layers_that_read_one_value_change_how_it_is_computed(self, small):
        # slice and pool read `project`; both compute in codes only if all that read them do
        job = job_of(small, INT3)
        alone = {n.name: INT3 if n.name == "join" else FLOAT32 for n in small.network.layers}
        both = {n: INT3 if n in ("expand", "join") else FLOAT32 for n in alone}
        first, second = (derive_formats(small.network, chosen).read for chosen in (alone, both))
        assert first != second
        measured = Clado(negligible=0).measure(job)
        choices = list(measured.increases)
        loss = increase(small.network, "kl", {"classifier": logits(small, {})})
        outputs = {"classifier": logits(small, {"expand": INT3, "join": INT3})}
        beyond = (
            loss(outputs, slice(0, len(small.images))).mean()
            - measured.increases["expand", INT3].mean()
            - measured.increases["join", INT3].mean()
        )
        at = choices.index(("expand", INT3)), choices.index(("join", INT3))
        assert measured.pairs[at] == pytest.approx(beyond, rel=5e-3, abs=2e-5)

    def test_an_operation_before_both_layers_that_only_both_bring_into_codes(self):
        nodes = (
            Node("x", Input(), (), (3, 8, 8)),
            Node("stem", Conv2d((3, 3), (1, 1), (1, 1, 1, 1), activation=RELU), ("x",), (8, 8, 8)),
            Node("pool", AveragePool((2, 2), (2, 2)), ("stem",), (8, 4, 4)),
            Node("left", Conv2d((3, 3), (1, 1), (1, 1, 1, 1), activation=RELU), ("pool",), (8, 4, 4)),
            Node("right", Conv2d((1, 1)), ("pool", "left"), (8, 4, 4)),
            Node("mean", Mean(), ("right",), (8,)),
            Node("classifier", Linear(), ("mean",), (5,)),
        )
        network = Network(nodes, ("classifier",))
        random = np.random.default_rng(2)
        weights = {}
        for node in network.layers:
            shape = network.weight_shape(node)
            size = (shape.out_channels, shape.in_channels, *shape.kernel)
            weights[f"{node.name}.weight"] = random.normal(0, 1.4 / shape.reduction**0.5, size).astype(np.float32)
            weights[f"{node.name}.bias"] = np.zeros(shape.out_channels, np.float32)
        weights["classifier.weight"] = weights["classifier.weight"].reshape(5, 8)
        example = SimpleNamespace(
            network=network, weights=weights, images=random.normal(0, 1, (24, 3, 8, 8)).astype(np.float32)
        )
        alone, both = (
            derive_formats(network, {n.name: BINARY if n.name in chosen else FLOAT32 for n in network.layers}).read
            for chosen in (("left",), ("left", "right"))
        )
        assert alone["pool"] != both["pool"]
        measured = Clado(negligible=0).measure(job_of(example, BINARY))
        choices = list(measured.increases)
        loss = increase(network, "kl", {"classifier": logits(example, {})})
        outputs = {"classifier": logits(example, {"left": BINARY, "right": BINARY})}
        beyond = loss(outputs, slice(0, 24)).mean() - sum(
            measured.increases[n, BINARY].mean() for n in ("left", "right")
        )
        at = choices.index(("left", BINARY)), choices.index(("right", BINARY))
        assert measured.pairs[at] == pytest.approx(beyond, rel=5e-3, abs=2e-5)

    def test_pairs_that_cannot_matter_keep_what_gram_says(self, small, every, profiles):
        gram, clado = profiles["gram"], profiles["clado"]
        losses = np.array([clado.loss(*choice) for choice in gram.choices])
        choices = [choice for choice in gram.choices if choice[1] != FLOAT32]
        wanted = matter(choices, losses[[gram.number(*c) for c in choices]], Clado().negligible)
        assert 0 < len(wanted) < len(choices) * (len(choices) - 3)
        for one in choices:
            for other in choices:
                if one[0] != other[0] and (one, other) not in wanted:
                    at = gram.number(*one), gram.number(*other)
                    scale = np.sqrt(np.prod([clado.loss(*c) / gram.loss(*c) for c in (one, other)]))
                    assert clado.pairs[at] == pytest.approx(scale * gram.pairs[at], rel=1e-4)

    def test_the_stated_cost_counts_every_pair(self, small):
        job = job_of(small, INT8, INT3)
        every = {(a, b) for a in job.choices for b in job.choices if a[0] != b[0]}
        cost = pairs_cost(job, every)
        assert cost.evaluations == 4 * 15 + 10  # pairs of choices, and the first choices alone
        assert cost.passes < 4 * 15

    def test_several_walks_give_about_the_same(self, small, every):
        measured, choices = every
        room = 16 * peak_bytes(Simulator(small.network, small.weights))
        job = job_of(small, INT8, INT3, BINARY, batch=8)
        chunked = Clado(negligible=0).measure(
            Job(job.network, job.weights, job.images, job.choices, job.metric, None, 8, room)
        )
        assert list(chunked.increases) == choices
        found, expected = chunked.pairs, measured.pairs
        assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.9  # layers are recovered on 16 images


class TestLittleMemory:
    """Images that do not fit together go through the network in chunks."""

    @pytest.mark.parametrize("method", [HessianTrace(), Orthogonality()], ids=lambda method: type(method).__name__)
    def test_chunks_change_nothing(self, small, method):
        room = 16 * peak_bytes(Simulator(small.network, small.weights))
        whole = job_of(small, INT8, BINARY, batch=8)
        chunked = replace(whole, memory=room)
        assert method.cost(chunked).passes >= method.cost(whole).passes
        found, expected = method.measure(chunked).increases, method.measure(whole).increases
        for choice, values in expected.items():
            np.testing.assert_allclose(found[choice], values, rtol=1e-2, atol=1e-4 * np.abs(values).max())


class TestHessianTrace:
    def test_the_trace_of_a_linear_layer_is_known(self, small):
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
    def test_pseudo_values_are_those_of_leaving_images_out(self, small):
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


CHAIN = """
import numpy as np
from bitplan.network import Input, Linear, Network, Node
from bitplan.variant import Variant
nodes = [Node("x", Input(), (), (6,))]
nodes += [Node(f"layer{i}", Linear(), (f"layer{i - 1}" if i else "x",), (6,)) for i in range(4)]
network = Network(tuple(nodes), ("layer3",))
random = np.random.default_rng(0)
weights = {f"layer{i}.weight": random.normal(size=(6, 6)).astype(np.float32) for i in range(4)}
weights |= {f"layer{i}.bias": np.zeros(6, np.float32) for i in range(4)}
images = random.normal(size=(20, 6)).astype(np.float32)
menu = {f"layer{i}": (Variant("int8"), Variant("binary")) for i in range(4)}
"""
KILLED = """
import os, signal, sys
from pathlib import Path
from bitplan.profiles.measure_loss import measure
calls = []
def report(done, total, text):
    calls.append(text)
    if len(calls) == 14:
        os.kill(os.getpid(), signal.SIGKILL)
measure(network, weights, images, menu, estimator="clado", checkpoint=Path(sys.argv[1]), progress=report)
"""


def test_a_killed_clado_goes_on_among_its_pairs(tmp_path):
    command = [sys.executable, "-c", CHAIN + KILLED, str(tmp_path / "journal")]
    killed = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    (tmp_path / "chain.py").write_text(CHAIN)
    chain = runpy.run_path(str(tmp_path / "chain.py"))
    given = [chain[name] for name in ("network", "weights", "images", "menu")]
    seen = []
    resumed = measure(
        *given, estimator="clado", checkpoint=tmp_path / "journal", progress=lambda *report: seen.append(report[2])
    )
    straight = measure(*given, estimator="clado")
    assert not any(" with " not in text for text in seen if text)  # only pairs are left to measure
    np.testing.assert_allclose(resumed.pairs, straight.pairs, rtol=1e-3, atol=1e-6)
