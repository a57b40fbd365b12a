"""Fits the link of a loss profile: random whole policies are carried out, and their measured losses set against their
scores (profiles/link.py)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bitplan.formats import Ranges
from bitplan.kernels.artifact import layer_bytes
from bitplan.network import Network, Weights
from bitplan.policies.realise.calibrate import calibrate
from bitplan.policies.realise.front import Images, count_images, default_batch, slices, take
from bitplan.policies.realise.pipeline import code_formats, realise
from bitplan.policies.realise.steps import recoveries
from bitplan.profiles.journal import Journal
from bitplan.profiles.link import Link, fit_link
from bitplan.profiles.loss import LossProfile
from bitplan.profiles.loss_walk import Progress
from bitplan.profiles.metrics import Increase, Labels, increase
from bitplan.profiles.quadratic import quadratic, score
from bitplan.profiles.workers import HERE, Workers, carry_out, one_thread
from bitplan.recovery_names import CORRECT, DEFAULT_RANGES
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
    recovery: Sequence[str] = (CORRECT,),
    range_method: str = DEFAULT_RANGES,
    seed: int = 0,
    checkpoint: Path | None = None,
    progress: Progress | None = None,
    workers: Workers = HERE,
) -> Calibrated:
    """The profile with the link of `policies` random policies from raw calibration images [N, C, H, W]. It keeps its
    link where fewer than three policies have a positive, finite loss. `recovery`, `range_method`, `checkpoint`, `workers`:
    as in measure_loss.measure."""
    count = count_images(images)
    held = max(1, round(HELD_BACK * count)) if count > 1 else 0
    shown, judged = slice(0, count - held), slice(count - held if held else 0, count)
    chosen = random_policies(network, profile, menu, policies, seed)
    matrix = quadratic(profile)
    scores = np.array([score(profile, matrix, policy) for policy in chosen])
    key = json.dumps(
        ["link", profile.metric, dict(profile.hashes), profile.estimator, seed, count, list(recovery), range_method]
    )
    with Journal(checkpoint, key) if checkpoint else nullcontext() as journal:
        task = PolicyLosses(
            network, weights, images, shown, judged, profile.metric, labels, tuple(recovery), range_method
        )
        losses = _measured(task, chosen, journal, progress, workers)
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


@dataclass(frozen=True)
class PolicyUnit:
    """One whole policy."""

    number: int
    policy: Policy

    @property
    def name(self) -> str:
        """Its name in the journal."""
        return json.dumps([str(variant) for variant in self.policy.values()])

    @property
    def title(self) -> str:
        return f"random policy {self.number + 1}"


@dataclass(frozen=True)
class PolicyLosses:
    """Carries out policies on the images `shown` and measures them on those `judged`; `ranges`, those of `shown`, are shared
    by all."""

    network: Network
    weights: Weights
    images: Images
    shown: slice
    judged: slice
    metric: str
    labels: Labels | None
    recovery: tuple[str, ...]
    range_method: str
    ranges: Ranges | None = None

    def __reduce__(self) -> tuple[type[PolicyLosses], tuple[object, ...]]:
        return PolicyLosses, tuple(getattr(self, field.name) for field in fields(self))

    @cached_property
    def loss(self) -> Increase:
        full = self._outputs({}, {})
        return increase(self.network, self.metric, full, None if self.labels is None else self.labels[self.judged])

    @cached_property
    def simulator(self) -> Simulator:
        return Simulator(self.network, self.weights)

    def evaluate(self, unit: PolicyUnit) -> NDArray[np.float32]:
        """The mean loss of a policy, [1]."""
        carried = realise(
            self.network,
            self.weights,
            take(self.images, self.shown),
            unit.policy,
            ranges=self.ranges,
            recoveries=recoveries(self.recovery),
        )
        outputs = self._outputs(carried.layers, carried.ranges)
        losses = self.loss(outputs, slice(0, self.judged.stop - self.judged.start))
        return np.array([losses.mean(dtype=np.float64)], np.float32)

    def with_ranges(self, policies: Sequence[Policy]) -> PolicyLosses:
        """With the ranges that these policies need."""
        formats = code_formats(variant for policy in policies for variant in policy.values())
        shown = take(self.images, self.shown)
        with one_thread():
            ranges = calibrate(
                self.simulator, shown, formats, batch=default_batch(self.network), method=self.range_method
            )
        return replace(self, ranges=ranges)

    def _outputs(self, layers: Layers, ranges: Ranges) -> dict[str, NDArray[np.float32]]:
        parts = slices(self.judged.start, self.judged.stop, default_batch(self.network))
        found = [self.simulator.outputs(take(self.images, part), layers, ranges) for part in parts]
        return {name: np.concatenate([values[name].numpy() for values in found]) for name in self.network.outputs}


def _measured(
    task: PolicyLosses,
    policies: Sequence[Policy],
    journal: Journal | None,
    progress: Progress | None,
    workers: Workers,
) -> NDArray[np.float64]:
    """The loss of every policy; the journal's are not measured again."""
    found = dict(journal.records) if journal else {}
    units = [PolicyUnit(number, policy) for number, policy in enumerate(policies)]
    missing = list({unit.name: unit for unit in units if unit.name not in found}.values())

    def keep(unit: PolicyUnit, values: NDArray[np.float32]) -> None:
        found[unit.name] = values
        if journal:
            journal.add(unit.name, values)

    def report(text: str) -> None:
        if progress:
            progress(sum(unit.name in found for unit in units), len(units), text)

    if missing:
        carry_out(task.with_ranges(policies), [[unit] for unit in missing], keep, report, workers)
    return np.array([float(found[unit.name][0]) for unit in units])


def _fitted(profile: LossProfile, scores: NDArray[np.float64], losses: NDArray[np.float64]) -> Link:
    usable = (scores > 0) & (losses > 0) & np.isfinite(scores) & np.isfinite(losses)
    if len(np.unique(scores[usable])) < FEWEST:
        return profile.link
    return fit_link(scores[usable], losses[usable])
