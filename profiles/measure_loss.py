"""Measures the loss profile of a network: which estimator, on what, and what is known already."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from importlib.resources import files
from pathlib import Path

import numpy as np

from bitplan.errors import UsageError
from bitplan.network import Network, Weights, weights_hash
from bitplan.policies.realise.front import Images, count_images, default_batch
from bitplan.profiles.estimators import SEPARABLE, estimator_named
from bitplan.profiles.estimators.method import Cost, Matrix, Measured
from bitplan.profiles.journal import Journal
from bitplan.profiles.loss import LossProfile
from bitplan.profiles.loss_walk import Choice, Job, Progress
from bitplan.profiles.metrics import Labels, effective_metric
from bitplan.profiles.workers import HERE, Workers, one_thread
from bitplan.recovery_names import CORRECT, DEFAULT_RANGES
from bitplan.variant import FLOAT32, Variant

Menu = Mapping[str, Sequence[Variant]]

MEMORY = 3 << 30
"""Bytes that the kept values may take; more images are measured in several walks through the network, with the layers
as they were recovered on the first walk's images."""

CODE = {
    "bitplan": ("formats.py", "operations.py", "recovery_names.py", "simulate.py", "variant.py"),
    "bitplan.encodings": (),
    "bitplan.policies.realise": (),
    "bitplan.profiles": (
        "link.py",
        "loss_walk.py",
        "measure_link.py",
        "measure_loss.py",
        "metrics.py",
        "quadratic.py",
    ),
    "bitplan.profiles.estimators": (),
}
"""Sources (of a package; none named: all) that decide what a variant costs and how that is measured: their digest is the
encodings' version, so that a profile measured with others is never reused."""


def profile_hashes(
    network: Network,
    weights: Weights,
    images: Images,
    labels: Labels | None = None,
    sources: Mapping[str, Sequence[str]] = CODE,
    recovery: Sequence[str] = (CORRECT,),
    ranges: str = DEFAULT_RANGES,
) -> dict[str, str]:
    """What a loss profile depends on, as SHA-256 in hexadecimal; `labels` only where the metric uses them, `sources` as
    in CODE, `recovery` and `ranges` the steps and the method that choices are measured under."""
    data = hashlib.sha256()
    for name, array in sorted(images.items()) if isinstance(images, Mapping) else [("", images)]:
        data.update(f"{name} {array.dtype} {array.shape}".encode())
        data.update(np.ascontiguousarray(array).data)
    if labels is not None:
        data.update(np.ascontiguousarray(labels, np.int64).data)
    code = hashlib.sha256(" ".join([*recovery, ranges]).encode())
    for package, names in sources.items():
        for file in sorted(files(package).iterdir(), key=lambda file: file.name):
            if file.name in names or (not names and file.name.endswith(".py")):
                code.update(file.name.encode() + file.read_bytes())
    return {
        "network": network.content_hash,
        "weights": weights_hash(weights),
        "data": data.hexdigest(),
        "encodings": code.hexdigest(),
    }


def measure(
    network: Network,
    weights: Weights,
    images: Images,
    menu: Menu,
    *,
    estimator: str = SEPARABLE,
    labels: Labels | None = None,
    metric: str = "kl",
    recovery: Sequence[str] = (CORRECT,),
    ranges: str = DEFAULT_RANGES,
    batch: int | None = None,
    memory: int = MEMORY,
    progress: Progress | None = None,
    checkpoint: Path | None = None,
    profile: LossProfile | None = None,
    workers: Workers = HERE,
) -> LossProfile:
    """The loss profile of `menu` (variants by layer) on raw images [N, C, H, W].

    Every layer is changed alone, or beside one other; its input is read as the variant reads it, all else stays float32.
    float32 costs 0 by definition. `estimator`: see estimators/; `metric`: see metrics.py; `recovery`: the steps, of those
    that act on one layer at a time, that are to be used for policies; `ranges`: how activation ranges are found. What `profile` holds is not
    measured again where its estimator, metric and hashes are the same and the estimator can add to it.
    `checkpoint` names a journal: a measurement that was interrupted goes on from it, with the same result (for the same
    batch and memory); it is removed by nobody, and started anew for other hashes. `workers`: who evaluates; it changes
    nothing in the result. torch computes with one thread for each of them.
    Raises UsageError for an unknown layer or estimator and for a metric that the estimator does not measure, DataError
    for images or labels that do not fit.
    """
    metric = checked_metric(network, estimator, metric)
    hashes = profile_hashes(
        network, weights, images, labels if metric == "task" else None, recovery=recovery, ranges=ranges
    )
    _check_menu(network, menu)
    choices = [(layer, variant) for layer, variants in menu.items() for variant in dict.fromkeys(variants)]
    fitting = profile if profile is not None and profile.same_origin(metric, hashes, estimator) else None
    if fitting and all(choice in fitting.increases for choice in choices):
        return fitting
    known = dict(fitting.increases) if fitting else {}
    choices = list(dict.fromkeys([*choices, *known]))
    method = estimator_named(estimator).method()
    if not method.incremental:
        known = {}
    wanted = {choice for choice in choices if choice not in known and choice[1] != FLOAT32}
    batch = batch or default_batch(network)
    measured = Measured({})
    cost = Cost(0, 0.0)
    if wanted:
        key = json.dumps([estimator, metric, hashes, batch, memory])
        with Journal(checkpoint, key) if checkpoint else nullcontext() as journal:
            job = Job(
                network, weights, images, frozenset(wanted), metric, labels, batch, memory, tuple(recovery), ranges
            )
            with one_thread():
                measured = method.measure(job, journal, progress, workers)
            cost = measured.cost or method.cost(job)
    zero = np.zeros(count_images(images), np.float32)
    increases = {**known, **measured.increases} | {choice: zero for choice in choices if choice[1] == FLOAT32}
    return LossProfile(
        metric,
        hashes,
        {choice: increases[choice] for choice in choices},
        estimator,
        _all_choices(measured.pairs, list(measured.increases), choices),
        measured.semidefinite,
        pair_errors=_all_choices(measured.pair_errors, list(measured.increases), choices),
        passes=cost.passes + (fitting.passes if fitting else 0.0),
    )


def expected_cost(network: Network, weights: Weights, images: Images, menu: Menu, estimator: str, metric: str) -> Cost:
    """What measuring will take at most, in forward passes over the images."""
    choices = frozenset((layer, v) for layer, variants in menu.items() for v in variants if v != FLOAT32)
    job = Job(network, weights, images, choices, metric, None, default_batch(network), MEMORY)
    return estimator_named(estimator).method().cost(job)


def checked_metric(network: Network, estimator: str, metric: str) -> str:
    """The metric that is measured where `metric` is asked for. Raises UsageError where the estimator cannot."""
    metric, metrics = effective_metric(network, metric), estimator_named(estimator).method().metrics
    if metric not in metrics:
        raise UsageError(
            f"the estimator {estimator} does not measure the metric {metric}, only {', '.join(metrics)}; name one of these "
            "with --loss-metric, or another estimator with --loss-profile"
        )
    return metric


def _all_choices(matrix: Matrix | None, measured: Sequence[Choice], choices: Sequence[Choice]) -> Matrix | None:
    """A matrix over the measured choices as one over all; float32 adds nothing to any pair."""
    if matrix is None:
        return None
    places = [choices.index(choice) for choice in measured]
    whole = np.zeros((len(choices), len(choices)))
    whole[np.ix_(places, places)] = matrix
    return whole


def _check_menu(network: Network, menu: Menu) -> None:
    names = [node.name for node in network.layers]
    for name in menu:
        if name not in names:
            raise UsageError(f"the menu names a layer {name!r} that does not exist; the layers are {', '.join(names)}")
