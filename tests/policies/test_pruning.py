"""How weights of pruned layers are chosen: against every mask there is, and in whole networks."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from bitplan.encodings import encoding_of
from bitplan.policies.realise import correct, quantise, realise, recover
from bitplan.policies.realise.moments import InputMoments
from bitplan.policies.realise.pruning import RULES, PrunedProblem
from bitplan.policies.realise.reconstruct import rounded
from bitplan.policies.realise.rounding import descend
from bitplan.simulate import Simulator
from bitplan.variant import Variant

from .test_recover import ranges, simulator, subject_of, variance_of_error  # noqa: F401  (fixtures)

torch = pytest.importorskip("torch")

FLOATS = Variant.parse("prunedfloat:kept=0.3")


def problem_of(seed: int, groups: int, rows: int, columns: int, *, whole: bool) -> PrunedProblem:
    """Inputs with fewer directions than columns, but for a little noise: weights can make up for each other."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(groups, 60, columns // 2)) @ random.normal(size=(groups, columns // 2, columns))
    x = x + 0.2 * random.normal(size=x.shape)
    grid = None  # not looked at
    return PrunedProblem(random.normal(size=(groups, rows, columns)), x.transpose(0, 2, 1) @ x / 60, grid, whole)  # type: ignore[arg-type]


def least_error(problem: PrunedProblem, kept: int) -> float:
    """That of the best mask of a single row and the weights of least squares on it."""
    curvature, target = problem.curvature[0], problem.target[0, 0]
    errors = []
    for mask in combinations(range(len(target)), kept):
        chosen = list(mask)
        weights = np.zeros(len(target))
        weights[chosen] = np.linalg.solve(curvature[np.ix_(chosen, chosen)], (curvature @ target)[chosen])
        errors.append((weights - target) @ curvature @ (weights - target))
    return float(min(errors))


def test_no_rule_beats_the_best_of_all_masks_and_reconstruction_is_the_best_rule() -> None:
    errors = {"best": 0.0, **dict.fromkeys(RULES, 0.0)}
    for seed in range(12):
        problem = problem_of(seed, 1, 1, 10, whole=False)
        errors["best"] += least_error(problem, 4)
        for name, rule in RULES.items():
            errors[name] += problem.total(rule(problem, 4))
    assert errors["best"] <= errors["reconstruction"] * (1 + 1e-9)
    assert errors["reconstruction"] <= min(errors["magnitude"], errors["second-order"])
    assert errors["second-order"] < errors["magnitude"]


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize(("groups", "rows", "columns"), [(1, 8, 30), (4, 1, 9), (2, 3, 12)])
@pytest.mark.parametrize("share", [0.1, 0.4, 1.0])
def test_every_rule_keeps_as_many_as_it_may_and_no_more(
    whole: bool, groups: int, rows: int, columns: int, share: float
):
    problem = problem_of(1, groups, rows, columns, whole=whole)
    kept = max(1, round(share * groups * rows * columns))
    for rule in RULES.values():
        levels, scale = rule(problem, kept)
        assert 0.8 * kept - 1 <= np.count_nonzero(levels) <= kept
        assert np.all(np.isfinite(levels)) and np.all(np.isfinite(scale))
        if whole:
            assert np.array_equal(levels, np.rint(levels)) and np.abs(levels).max() <= 127


def test_descent_under_a_price_never_raises_error_and_price_together() -> None:
    problem = replace(problem_of(2, 1, 6, 20, whole=False), price=0.4)
    levels, scale = problem.target.copy(), np.ones((1, 6))
    before = np.inf
    for _ in range(5):
        levels, scale = descend(problem, levels, scale, 1)
        after = float(problem.error(levels, scale).sum()) + problem.price * np.count_nonzero(levels)
        assert after <= before * (1 + 1e-9)
        before = after
    assert np.count_nonzero(levels) < levels.size  # of which none was zero


@pytest.mark.parametrize("name", ["stem", "depthwise", "project", "join", "classifier"])
def test_pruned_floats_have_less_output_error_than_the_largest_weights(small, simulator, ranges, name: str) -> None:  # noqa: F811
    subject = subject_of(small.network, simulator, small.images, ranges, name, FLOATS)
    layer = quantise(small.network, subject.node, small.weights, FLOATS)
    new = rounded(InputMoments.of(subject), layer, subject.weight)
    before, after = (variance_of_error(subject, x).sum() for x in (layer, new))
    assert after < before
    encoding = encoding_of(FLOATS)
    unpacked = encoding.unpack(encoding.pack(new), new.shape, FLOATS)
    assert np.array_equal(unpacked.values, new.values)


def test_pruned_floats_get_their_means_and_scales_back(small, simulator, ranges) -> None:  # noqa: F811
    subject = subject_of(small.network, simulator, small.images, ranges, "join", FLOATS)
    layer = correct(subject, quantise(small.network, subject.node, small.weights, FLOATS))
    full, pruned = (torch.cat(part, 1) for part in zip(*subject.outputs(layer), strict=True))
    np.testing.assert_allclose(pruned.mean(1), full.mean(1), atol=1e-3 * float(full.std()))
    np.testing.assert_allclose(pruned.std(1), full.std(1), rtol=2e-3)


def test_a_network_of_pruned_floats_alone_is_recovered(small) -> None:
    variants = {node.name: FLOATS for node in small.network.layers}
    found = recover(small.network, small.weights, small.images, variants, ("correct", "reconstruct"))
    losses = [gain.held_back_loss for gain in found.gains]
    assert losses[2] < losses[0]
    assert all(
        np.mean(layer.values != 0) <= 0.31 + 1 / layer.shape.count for layer in found.realisation.layers.values()
    )


def test_pruned_and_other_layers_mix(small) -> None:
    chosen = [Variant.parse(text) for text in ("pruned:kept=0.3", "prunedfloat:kept=0.5", "int4")]
    variants = {node.name: chosen[number % 3] for number, node in enumerate(small.network.layers)}
    result = realise(small.network, small.weights, small.images, variants)
    simulator = Simulator(small.network, small.weights)  # noqa: F811
    outputs = simulator.outputs(small.images, result.layers, result.ranges)["classifier"]
    assert bool(torch.isfinite(outputs).all())
