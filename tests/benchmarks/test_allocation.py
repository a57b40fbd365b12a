"""Allocations side by side: names, programs, traces, the evaluator and the table; no peer has to be installed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from allocators import Unavailable
from allocators.assignment import MENU, bits_of, bits_per_weight, matched, variants_of
from allocators.evaluate import Evaluator
from allocators.hawq import hessian_traces, positive, squared_error
from allocators.knapsack import cheapest
from allocators.on_mct import spellings
from allocators.on_modelopt import bits_by_module, format_of
from allocators.ours import OURS, planned
from allocators.process import Answers, ask
from allocators.report import markdown, plot
from allocators.rows import distinct, row, scores
from allocators.subject import Subject
from allocators.uniform import assign as uniform
from allocators.worker import peer, respond
from networks import Case
from torch import nn

from bitplan.kernels.artifact import pack_artifact
from bitplan.policies.realise import realise

LAYERS = ["conv1", "layer1.0.conv1", "fc"]


def two_layers() -> Subject:
    torch.manual_seed(3)
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Tanh(), nn.Flatten(), nn.Linear(8, 3)).eval()
    return Subject(module, torch.randn(6, 1, 4, 4), torch.tensor([0, 1, 2, 0, 1, 2]), batch=4)


@pytest.fixture
def case(small: Any) -> Case:
    labels = np.arange(len(small.images)) % 5
    return Case("small", small.network, small.weights, small.images, small.images[::-1].copy(), labels, 16)


@pytest.fixture
def evaluator(case: Case, tmp_path: Path) -> Iterator[Evaluator]:
    with Evaluator(case, 40, tmp_path) as evaluator:
        yield evaluator


# -- names ---------------------------------------------------------------------------------------------------------


def test_names_of_graph_nodes_become_ours_in_our_order() -> None:
    found = {"fc": 8, "layer1_0_conv1_bn": 2, "conv1_bn": 4}
    assert list(matched(found, LAYERS, spellings).items()) == [("conv1", 4), ("layer1.0.conv1", 2), ("fc", 8)]


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ({"conv1": 8, "fc": 8}, "layer1.0.conv1' stands 0 times"),
        ({"conv1": 8, "conv1_bn": 8, "layer1_0_conv1": 8, "fc": 8}, "conv1' stands 2 times"),
        ({"conv1": 8, "layer1_0_conv1": 8, "fc": 8, "other": 8}, "'other', which is no layer"),
        ({"conv1": 8, "layer1_0_conv1": 3, "fc": 8}, "3 bits; the menu is"),
    ],
)
def test_answers_that_do_not_fit_the_network_are_refused(found: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        matched(found, LAYERS, spellings)


def test_one_name_is_never_two_layers() -> None:
    with pytest.raises(ValueError, match="may be 'a_b' or another"):
        matched({"a_b": 8}, ["a.b", "a_b"], spellings)


def test_bits_of_a_configuration_are_those_of_enabled_weights() -> None:
    config = {
        "quant_cfg": [
            {"quantizer_name": "*", "enable": False},
            {"quantizer_name": "conv.weight_quantizer", "enable": True, "cfg": {"num_bits": 2}},
            {"quantizer_name": "conv.input_quantizer", "enable": True, "cfg": {"num_bits": 8}},
            {"quantizer_name": "fc.weight_quantizer", "cfg": {"num_bits": 4}},
            {"quantizer_name": "left.weight_quantizer", "enable": False, "cfg": {"num_bits": 4}},
        ]
    }
    assert bits_by_module(config) == {"conv": 2, "fc": 4}
    assert [entry["cfg"]["num_bits"] for entry in format_of(4)["quant_cfg"][1:]] == [4, 8]


# -- peers of our own ----------------------------------------------------------------------------------------------


def test_uniform_takes_what_the_budget_allows() -> None:
    subject = two_layers()
    found = {budget: set(bits.values()) for budget, bits in uniform(subject, (2.0, 3.9, 4.0, 8.0))}
    assert found == {2.0: {2}, 3.9: {2}, 4.0: {4}, 8.0: {8}}


def test_the_program_is_solved_to_optimality() -> None:
    random = np.random.default_rng(0)
    costs, sizes = random.random((5, 3)) * 1e-6, random.integers(1, 20, (5, 3))
    limit = int(sizes.min(1).sum()) + 8
    fitting = [c for c in product(range(3), repeat=5) if sizes[range(5), c].sum() <= limit]
    best = min(fitting, key=lambda choice: costs[range(5), choice].sum())
    assert tuple(cheapest(costs, sizes, limit)) == best
    costs[0] *= 1e6  # one layer that matters more than all others must not hide them
    best = min(fitting, key=lambda choice: costs[range(5), choice].sum())
    assert tuple(cheapest(costs, sizes, limit)) == best
    with pytest.raises(ValueError, match="no choice fits"):
        cheapest(costs, sizes, int(sizes.min(1).sum()) - 1)


def test_traces_agree_with_the_exact_hessian() -> None:
    subject = two_layers()
    found = hessian_traces(subject, probes=400)
    parameters = dict(subject.module.named_parameters())
    exact = []
    for name in ("0.weight", "3.weight"):

        def loss(weight: torch.Tensor, name: str = name) -> torch.Tensor:
            output = torch.func.functional_call(subject.module, {**parameters, name: weight}, (subject.images,))
            return nn.functional.cross_entropy(output, subject.labels)

        hessian = torch.autograd.functional.hessian(loss, parameters[name].detach())
        count = parameters[name].numel()
        exact.append(float(hessian.reshape(count, count).trace()))
    errors = found.std(0, ddof=1) / np.sqrt(len(found))
    assert np.all(np.abs(found.mean(0) - exact) < 4 * errors)
    assert np.all(errors < 0.2 * np.abs(exact))


def test_a_trace_that_is_not_positive_counts_as_the_smallest_that_is() -> None:
    assert positive(np.array([3.0, -1.0, 0.5, 0.0])).tolist() == [3.0, 0.5, 0.5, 0.5]
    assert positive(np.array([-1.0, 0.0])).tolist() == [1.0, 1.0]


def test_more_bits_round_closer() -> None:
    for layer in two_layers().layers.values():
        coarse, middle, fine = (squared_error(layer, bits) for bits in MENU)
        assert coarse > 4 * middle > 16 * fine > 0


# -- the evaluator and our own entries -------------------------------------------------------------------------------


def test_bytes_are_those_of_the_artifact(case: Case, evaluator: Evaluator) -> None:
    bits = {node.name: MENU[i % 3] for i, node in enumerate(case.network.layers)}
    found = evaluator.measure(bits)
    carried = realise(case.network, case.weights, case.calibration, variants_of(bits))
    assert found.bytes == len(pack_artifact(case.network, case.weights, carried.layers, carried.ranges))
    assert found.losses.shape == found.hits.shape == (40,)
    assert bits_of(variants_of(bits)) == bits


def test_nothing_is_measured_twice_and_other_images_are_measured_anew(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bits = dict.fromkeys((node.name for node in case.network.layers), 2)
    with Evaluator(case, 40, tmp_path) as evaluator:
        first = evaluator.measure(bits)
    carried: list[object] = []
    monkeypatch.setattr("allocators.evaluate.realise", lambda *given: carried.append(given) or realise(*given))
    with Evaluator(case, 40, tmp_path) as again:
        assert np.array_equal(again.measure(bits).losses, first.losses)
    assert not carried
    with Evaluator(case, 20, tmp_path) as fewer:
        assert np.allclose(fewer.measure(bits).losses, first.losses[:20], rtol=1e-3)
    assert len(carried) == 1


def test_ours_stays_within_the_bytes_of_the_peer(case: Case, evaluator: Evaluator, tmp_path: Path) -> None:
    layers = [node.name for node in case.network.layers]
    ((_, profile_of),) = OURS[:1]
    profile = profile_of(case, tmp_path)
    lowest = dict.fromkeys(layers, 2)
    for theirs in (lowest, dict.fromkeys(layers, 4) | {layers[0]: 8}):
        budget = evaluator.measure(theirs).bytes
        bits, certificate = planned(case, profile, budget)
        assert evaluator.measure(bits).bytes <= budget
        assert certificate.gap == pytest.approx(0, abs=1e-6)
    assert planned(case, profile, evaluator.measure(lowest).bytes)[0] == lowest


# -- processes -------------------------------------------------------------------------------------------------------


def test_what_is_missing_is_said_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Unavailable, match="there is no peer 'none'"):
        peer("none")
    monkeypatch.setattr("allocators.on_mct.PACKAGES", ("no-such-package",))
    (answer,) = respond({"peer": "mct", "network": "resnet20", "images": 1, "budgets": [2.0]})
    assert "no-such-package is not installed; pip install 'bitplan[allocation]'" in answer["unavailable"]


def test_a_peer_that_fails_is_left_out_with_its_last_words(tmp_path: Path) -> None:
    told: list[str] = []
    with pytest.raises(
        Unavailable, match=r"uniform failed on nothing .*unknown network 'nothing'.*nothing\.uniform\.log"
    ):
        ask("uniform", "nothing", [2.0], {"images": 1}, tmp_path, sys.executable, told.append)


def test_answers_are_kept_for_one_question(tmp_path: Path) -> None:
    key = {"data": "a", "images": 2}
    stored = Answers(key, "about", {"torch": "2"}, {2.5: {"fc": 2}}, {2.5: 0.1})
    stored.write(tmp_path / "small.mct.json")
    told: list[str] = []
    found = ask("mct", "small", [2.5], key, tmp_path, "no-interpreter", told.append)
    assert (found, told) == (stored, [])
    assert Answers.read(tmp_path / "small.mct.json", key | {"data": "b"}).bits == {}


# -- rows ------------------------------------------------------------------------------------------------------------


def test_rows_compare_image_by_image(case: Case, evaluator: Evaluator, tmp_path: Path) -> None:
    layers = [node.name for node in case.network.layers]
    low, high = dict.fromkeys(layers, 2), dict.fromkeys(layers, 8)
    coarse, fine = evaluator.measure(low), evaluator.measure(high)
    better = row("small", 2.5, "mct", coarse, low, {"separable": (fine, high, 0.0)})
    equal = row("small", 3.0, "mct", fine, high, {"separable": (fine, high, 0.0)})
    gain = coarse.losses.astype(np.float64) - fine.losses
    ours = better["ours"]["separable"]
    assert ours["kl_gain"] == pytest.approx(gain.mean())
    assert ours["kl_gain_standard_error"] == pytest.approx(gain.std(ddof=1) / np.sqrt(40))
    assert better["bits_per_weight"] == bits_per_weight(case.network, low) == 2
    (score,) = scores([better, equal, equal | {"budget_bits_per_weight": 3.5}])
    assert (score.better, score.within, score.worse, score.budgets) == (1, 1, 0, 2)
    assert score.ratio == pytest.approx((fine.loss / coarse.loss) ** 0.5)
    assert len(distinct([equal, equal])) == 1
    assert "| small | mct | separable | 1 of 2 | 1 | 0 |" in markdown([better, equal])
    pytest.importorskip("matplotlib", reason="pip install 'bitplan[bench]'")
    plot([better, equal], tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
