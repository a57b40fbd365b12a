"""Measures what other choices cost in a trained network: one layer is changed, all others stay as they were trained.

The profile that comes of it is a first-order picture of the loss around the trained policy p. With L(l, v) the loss
against full precision where layer l alone is changed to v, and L(p) that of the trained network,

    loss(policy) ~ L(p) + sum over layers (L(l, policy[l]) - L(p))

Each entry is its difference plus a share of L(p), so that entries add up to the loss itself. A difference counts with its
standard error added: a solver that chooses the least of many noisy numbers would otherwise choose the luckiest ones.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from math import sqrt
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bitplan.encodings import EncodedLayer
from bitplan.formats import Ranges
from bitplan.network import Network, Weights
from bitplan.policies.realise.front import Images, count_images, default_batch, slices, take
from bitplan.policies.realise.warm import WarmStart
from bitplan.profiles.estimators import SEPARABLE, estimator_named
from bitplan.profiles.estimators.method import Cost
from bitplan.profiles.journal import Journal
from bitplan.profiles.loss import LossProfile
from bitplan.profiles.loss_walk import Choice, Job, Progress
from bitplan.profiles.measure_loss import CODE, MEMORY, Menu, checked_metric, profile_hashes
from bitplan.profiles.metrics import Labels, increase
from bitplan.profiles.workers import HERE, Workers, one_thread
from bitplan.recovery_names import CORRECT, DEFAULT_RANGES
from bitplan.simulate import Simulator

Losses = NDArray[np.float32]


def around_hashes(
    network: Network,
    weights: Weights,
    images: Images,
    around: WarmStart,
    labels: Labels | None = None,
    recovery: Sequence[str] = (CORRECT,),
    ranges: str = DEFAULT_RANGES,
) -> dict[str, str]:
    """As `profile_hashes`; the trained network counts among the weights."""
    sources = {**CODE, "bitplan.profiles": (*CODE["bitplan.profiles"], "measure_around.py")}
    found = profile_hashes(network, weights, images, labels, sources, recovery, ranges)
    both = f"{found['weights']} {around.content_hash}"
    return found | {"weights": hashlib.sha256(both.encode()).hexdigest()}


def measure_around(
    network: Network,
    weights: Weights,
    images: Images,
    menu: Menu,
    around: WarmStart,
    *,
    labels: Labels | None = None,
    metric: str = "kl",
    recovery: Sequence[str] = (CORRECT,),
    ranges: str = DEFAULT_RANGES,
    batch: int | None = None,
    memory: int = MEMORY,
    progress: Progress | None = None,
    checkpoint: Path | None = None,
    workers: Workers = HERE,
) -> LossProfile:
    """The profile of `menu`, and of the choices of `around`, on raw images [N, C, H, W]. A choice is made of the trained
    floats with `recovery` so that the layer acts as the trained one does. `around` must have the ranges of all formats of
    the menu. Options, journal and errors as in measure_loss.measure."""
    metric = checked_metric(network, SEPARABLE, metric)
    used = labels if metric == "task" else None
    hashes = around_hashes(network, weights, images, around, used, recovery, ranges)
    own = list(around.variants.items())
    every = [(name, variant) for name, variants in menu.items() for variant in variants]
    choices = list(dict.fromkeys([*own, *every]))
    batch = batch or default_batch(network)
    job = _job(network, weights, images, choices, around, metric, labels, batch, memory, recovery, ranges)
    key = json.dumps([SEPARABLE, metric, hashes, batch, memory])
    method = estimator_named(SEPARABLE).method()
    with Journal(checkpoint, key) if checkpoint else nullcontext() as journal, one_thread():
        state = around.layers, around.ranges
        (present,) = losses_of(network, weights, images, [state], metric=metric, labels=used, batch=batch)
        found = method.measure(job, journal, progress, workers).increases if job.choices else {}
    differences = {choice: found[choice] - present if choice in found else 0 * present for choice in choices}
    increases = added_up(differences, float(present.mean(dtype=np.float64)))
    return LossProfile(metric, hashes, increases, SEPARABLE, passes=method.cost(job).passes)


def added_up(differences: Mapping[Choice, Losses], present: float) -> dict[Choice, Losses]:
    """Entries whose sum over the layers is the present loss plus the differences, each with its standard error over the
    images added. A layer's share of the present loss is at least what its best choice saves, so that no entry is negative;
    where all savings together would be more than the loss there is, each counts by as much less."""
    careful = {choice: values + _standard_error(values) for choice, values in differences.items()}
    means = {choice: float(values.mean(dtype=np.float64)) for choice, values in careful.items()}
    saved: dict[str, float] = {}
    for (name, _), mean in means.items():
        saved[name] = max(saved.get(name, 0.0), -mean)
    total = sum(saved.values())
    factor = min(1.0, present / total) if total > 0 else 1.0
    rest = (present - factor * total) / len(saved)
    return {
        choice: np.asarray(
            (factor if means[choice] < 0 else 1.0) * values + factor * saved[choice[0]] + rest, np.float32
        )
        for choice, values in careful.items()
    }


def _standard_error(values: Losses) -> float:
    return float(values.std(ddof=1, dtype=np.float64)) / sqrt(len(values)) if len(values) > 1 else 0.0


def losses_of(
    network: Network,
    weights: Weights,
    images: Images,
    states: Sequence[tuple[Mapping[str, EncodedLayer], Ranges]],
    *,
    metric: str = "kl",
    labels: Labels | None = None,
    batch: int | None = None,
    temperature: float = 1.0,
) -> list[Losses]:
    """The loss increases [N] over full precision of each of some states of the network (layers and ranges) on raw images
    [N, ...]; `temperature` as in `increase`."""
    simulator, batch = Simulator(network, weights), batch or default_batch(network)
    parts = slices(0, count_images(images), batch)

    def outputs(layers: Mapping[str, EncodedLayer] | None, ranges: Ranges | None) -> dict[str, Losses]:
        found = [simulator.outputs(take(images, part), layers, ranges) for part in parts]
        return {name: np.concatenate([part[name].numpy() for part in found]) for name in network.outputs}

    loss = increase(network, metric, outputs(None, None), labels, temperature)
    return [loss(outputs(*state), slice(None)) for state in states]


def expected_cost(network: Network, weights: Weights, images: Images, menu: Menu, around: WarmStart) -> Cost:
    """What measuring will take at most."""
    choices = [(name, variant) for name, variants in menu.items() for variant in variants]
    job = _job(
        network, weights, images, choices, around, "kl", None, default_batch(network), MEMORY, (), DEFAULT_RANGES
    )
    return estimator_named(SEPARABLE).method().cost(job)


def _job(
    network: Network,
    weights: Weights,
    images: Images,
    choices: Sequence[Choice],
    around: WarmStart,
    metric: str,
    labels: Labels | None,
    batch: int,
    memory: int,
    recovery: Sequence[str],
    ranges: str,
) -> Job:
    """Of the choices that would change the trained network."""
    changes = frozenset((name, variant) for name, variant in choices if around.kept(name, variant) is None)
    return Job(network, weights, images, changes, metric, labels, batch, memory, tuple(recovery), ranges, around)
