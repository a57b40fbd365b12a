"""Fits the link of a loss profile: random whole policies are carried out, and their measured losses set against their
scores (profiles/link.py)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bitplan.formats import Ranges
from bitplan.kernels.artifact import layer_bytes
from bitplan.network import Network, Weights
from bitplan.policies.realise.calibrate import calibrate
from bitplan.policies.realise.front import Images, count_images, default_batch, slices, take
from bitplan.policies.realise.pipeline import code_formats, realise
from bitplan.profiles.journal import Journal
from bitplan.profiles.link import Link, fit_link
from bitplan.profiles.loss import LossProfile
from bitplan.profiles.loss_walk import Progress
from bitplan.profiles.metrics import Labels, increase
from bitplan.profiles.quadratic import quadratic, score
from bitplan.simulate import Layers, Simulator
from bitplan.variant import FLOAT32, Variant

HELD_BACK = 0.25
"""Share of the calibration images, the last ones, that losses of policies are measured on; recovery uses the others."""
NOISE = 0.5
"""Standard deviation of the logarithm of the factor that each choice's loss gets, so that policies are random but not
foolish: those that a program proposes are not."""
FEWEST = 3

Policy = Mapping[str, Variant]


@dataclass(frozen=True)
class Calibrated:
    """A profile with a link, and the scores and measured losses [policies] that it was fitted on."""

    profile: LossProfile
    scores: NDArray[np.float64]
    losses: NDArray[np.float64]

    @property
    def predicted(self) -> NDArray[np.float64]:
        """The losses that the link makes of the scores."""
        return np.array([self.profile.link.loss(value) for value in self.scores])


def calibrated(
    network: Network,
    weights: Weights,
    images: Images,
    menu: Mapping[str, Sequence[Variant]],
    profile: LossProfile,
    *,
    policies: int,
    labels: Labels | None = None,
    seed: int = 0,
    checkpoint: Path | None = None,
    progress: Progress | None = None,
) -> Calibrated:
    """The profile with the link of `policies` random policies from raw calibration images [N, C, H, W]. It keeps its
    link where fewer than three policies have a positive loss. `checkpoint`: as in measure_loss.measure."""
    count = count_images(images)
    held = max(1, round(HELD_BACK * count)) if count > 1 else 0
    shown, judged = slice(0, count - held), slice(count - held if held else 0, count)
    chosen = random_policies(network, profile, menu, policies, seed)
    matrix = quadratic(profile)
    scores = np.array([score(profile, matrix, policy) for policy in chosen])
    key = json.dumps(["link", profile.metric, dict(profile.hashes), profile.estimator, seed, count])
    with Journal(checkpoint, key) if checkpoint else nullcontext() as journal:
        losses = _measured(network, weights, images, chosen, shown, judged, profile.metric, labels, journal, progress)
    fitted = replace(profile, link=_fitted(profile, scores, losses), link_policies=policies)
    return Calibrated(fitted, scores, losses)


def random_policies(
    network: Network, profile: LossProfile, menu: Mapping[str, Sequence[Variant]], count: int, seed: int = 0
) -> list[dict[str, Variant]]:
    """Policies of `count` sizes, evenly spread in the logarithm of their bytes: each takes the best variants that fit
    for single losses with NOISE, by one price per byte for all layers."""
    random = np.random.default_rng(seed)
    names = list(menu)
    options = [[v for v in menu[name] if v != FLOAT32] or [FLOAT32] for name in names]
    sizes = [
        np.array([layer_bytes(network, network.by_name[name], v) for v in own])
        for name, own in zip(names, options, strict=True)
    ]
    losses = [
        np.array([max(profile.loss(name, v), 0.0) for v in own]) for name, own in zip(names, options, strict=True)
    ]
    targets = np.geomspace(sum(s.min() for s in sizes), sum(s.max() for s in sizes), count + 2)[1:-1]
    found = []
    for target in targets:
        noisy = [own * np.exp(random.normal(0, NOISE, len(own))) for own in losses]
        picks = _of_size(noisy, sizes, float(target))
        found.append({name: own[pick] for name, own, pick in zip(names, options, picks, strict=True)})
    return found


def _of_size(losses: Sequence[NDArray[np.float64]], sizes: Sequence[NDArray[np.int64]], target: float) -> list[int]:
    """By bisection of the price per byte."""
    low, high = -40.0, 40.0
    picks: list[int] = []
    for _ in range(60):
        price = np.exp((low + high) / 2)
        picks = [int(np.argmin(loss + price * size)) for loss, size in zip(losses, sizes, strict=True)]
        if sum(size[pick] for size, pick in zip(sizes, picks, strict=True)) > target:
            low = (low + high) / 2
        else:
            high = (low + high) / 2
    return picks


def _measured(
    network: Network,
    weights: Weights,
    images: Images,
    policies: Sequence[Policy],
    shown: slice,
    judged: slice,
    metric: str,
    labels: Labels | None,
    journal: Journal | None,
    progress: Progress | None,
) -> NDArray[np.float64]:
    found = dict(journal.records) if journal else {}
    names = [json.dumps([str(variant) for variant in policy.values()]) for policy in policies]
    if any(name not in found for name in names):
        simulator, batch = Simulator(network, weights), default_batch(network)
        parts = slices(judged.start, judged.stop, batch)
        full = _outputs(simulator, images, parts, {}, {})
        loss = increase(network, metric, full, None if labels is None else labels[judged])
        ranges = calibrate(
            simulator, take(images, shown), code_formats(v for policy in policies for v in policy.values()), batch=batch
        )
        for done, (name, policy) in enumerate(zip(names, policies, strict=True)):
            if progress:
                progress(done, len(policies), "random policies")
            if name in found:
                continue
            carried = realise(network, weights, take(images, shown), policy, ranges=ranges)
            outputs = _outputs(simulator, images, parts, carried.layers, carried.ranges)
            losses = loss(outputs, slice(0, judged.stop - judged.start))
            found[name] = np.array([losses.mean(dtype=np.float64)], np.float32)
            if journal:
                journal.add(name, found[name])
    return np.array([float(found[name][0]) for name in names])


def _outputs(
    simulator: Simulator, images: Images, parts: Sequence[slice], layers: Layers, ranges: Ranges
) -> dict[str, NDArray[np.float32]]:
    found = [simulator.outputs(take(images, part), layers, ranges) for part in parts]
    return {name: np.concatenate([values[name].numpy() for values in found]) for name in simulator.network.outputs}


def _fitted(profile: LossProfile, scores: NDArray[np.float64], losses: NDArray[np.float64]) -> Link:
    usable = (scores > 0) & (losses > 0)
    if len(np.unique(scores[usable])) < FEWEST:
        return profile.link
    return fit_link(scores[usable], losses[usable])
