"""Pairs of choices: against evaluations of both together."""

from __future__ import annotations

import signal
from types import SimpleNamespace

import numpy as np
import pytest

from bitplan.formats import derive_formats
from bitplan.network import RELU, AveragePool, Conv2d, Input, Linear, Mean, Network, Node
from bitplan.policies.realise.front import peak_bytes
from bitplan.profiles.estimators.clado import Clado, matter, pairs_cost
from bitplan.profiles.loss_walk import Job
from bitplan.profiles.measure_loss import measure
from bitplan.profiles.metrics import increase
from bitplan.simulate import Simulator
from bitplan.variant import FLOAT32, Variant

pytest.importorskip("torch")

INT8, INT3, INT2, BINARY = (Variant(name) for name in ("int8", "int3", "int2", "binary"))


@pytest.fixture(scope="module")
def every(small, job_of):
    """All pairs by evaluation, and the choices in their order."""
    measured = Clado(negligible=0).measure(job_of(small, INT8, INT3, BINARY))
    return measured, list(measured.increases)


class TestClado:
    PAIRS = (
        (("stem", BINARY), ("depthwise", INT3)),
        (("project", INT3), ("join", BINARY)),
        (("expand", BINARY), ("join", INT3)),
        (("depthwise", BINARY), ("classifier", BINARY)),
    )

    @pytest.mark.parametrize("one, other", PAIRS)
    def test_a_pair_is_what_both_cost_beyond_each(self, small, every, one, other, logits):
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

    def test_two_layers_that_read_one_value_change_how_it_is_computed(self, small, job_of, logits):
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

    def test_an_operation_before_both_layers_that_only_both_bring_into_codes(self, job_of, logits):
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

    def test_the_stated_cost_counts_every_pair(self, small, job_of):
        job = job_of(small, INT8, INT3)
        every = {(a, b) for a in job.choices for b in job.choices if a[0] != b[0]}
        cost = pairs_cost(job, every)
        assert cost.evaluations == 4 * 15 + 10  # pairs of choices, and the first choices alone
        assert cost.passes < 4 * 15

    def test_several_walks_give_about_the_same(self, small, every, job_of):
        measured, choices = every
        room = 16 * peak_bytes(Simulator(small.network, small.weights))
        job = job_of(small, INT8, INT3, BINARY, batch=8)
        chunked = Clado(negligible=0).measure(
            Job(job.network, job.weights, job.images, job.choices, job.metric, None, 8, room)
        )
        assert list(chunked.increases) == choices
        found, expected = chunked.pairs, measured.pairs
        assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.9  # layers are recovered on 16 images


KILLED = """
import os, signal, sys
from pathlib import Path
from bitplan.profiles.measure_loss import measure
calls = []
def report(done, total, text):
    calls.append(text)
    if len(calls) == 14:
        os.kill(os.getpid(), signal.SIGKILL)
measure(*subject, estimator="clado", checkpoint=Path(sys.argv[1]), progress=report)
"""


def test_a_killed_clado_goes_on_among_its_pairs(chain, tmp_path):
    killed = chain.run(KILLED, tmp_path / "journal")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    seen = []
    resumed = measure(
        *chain.subject,
        estimator="clado",
        checkpoint=tmp_path / "journal",
        progress=lambda *report: seen.append(report[2]),
    )
    straight = measure(*chain.subject, estimator="clado")
    assert not any(" with " not in text for text in seen if text)  # only pairs are left to measure
    np.testing.assert_allclose(resumed.pairs, straight.pairs, rtol=1e-3, atol=1e-6)
