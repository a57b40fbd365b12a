"""The loss profile of a hybrid job: each (leaf, variant) alone in the user's module, as its simulated twin."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.markup import escape
from torch import nn

from bitplan.config import Config
from bitplan.errors import UsageError
from bitplan.hybrid.leaves import Leaf
from bitplan.hybrid.ranges import calibrate_inputs
from bitplan.hybrid.recover import leaf_inputs, recovered
from bitplan.hybrid.trained import HybridTrained
from bitplan.hybrid.twin import Twin, leaf_simulator
from bitplan.policies.realise.front import slices
from bitplan.policies.realise.pipeline import code_formats
from bitplan.policies.realise.steps import recoveries
from bitplan.profiles.estimators import SEPARABLE
from bitplan.profiles.journal import Journal
from bitplan.profiles.loss import LossProfile, cache_path
from bitplan.profiles.measure_loss import CODE, profile_hashes
from bitplan.profiles.metrics import Increase, effective_metric, increase
from bitplan.profiling import named_estimator
from bitplan.progress import Reporter
from bitplan.recovery_names import DEFAULT_RANGES
from bitplan.variant import FLOAT32

Vector = NDArray[np.float32]

SOURCES = CODE | {"bitplan.hybrid": ()}
"""As CODE of whole networks: leaves are found, read and recovered by this package."""


def loss_profile(trained: HybridTrained, config: Config, reporter: Reporter) -> LossProfile:
    """The profile on the calibration images, from the cache or measured (going on where an interrupted run stopped)."""
    named, file = named_estimator(config)
    if named not in (None, SEPARABLE):
        raise UsageError(
            f"the layers of a module are measured by the estimator {SEPARABLE} only, not by {named}"
            "; leave --loss-profile out"
        )
    count = trained.loss_images(config.loss_size)
    images = trained.data.calibration_x[:count]
    labels = None if trained.data.calibration_y is None else trained.data.calibration_y[:count]
    metric = effective_metric(trained.outputs_network, config.loss_metric)
    steps = config.layer_recovery
    hashes = hybrid_hashes(trained, images, labels if metric == "task" else None, steps, config.ranges)
    path = file or cache_path(metric, hashes)
    known = LossProfile.load(path) if path.exists() else None
    if known and not known.same_origin(metric, hashes):
        raise UsageError(
            f"the loss profile {path} was measured on another network, other images, for other steps of recovery or with other code; "
            "name another file with --loss-profile, or remove this one to measure again"
        )
    choices = [(leaf, variant) for leaf in trained.leaves for variant in trained.menu[leaf.name]]
    increases = dict(known.increases) if known else {}
    missing = [(leaf, v) for leaf, v in choices if (leaf.name, v) not in increases and v != FLOAT32]
    if not missing:
        reporter.say(f"loss profile: every choice is known [dim]({escape(str(path))})[/]")
    else:
        with (
            reporter.stage("measuring the loss of every choice") as report,
            Journal(path.with_suffix(".journal"), json.dumps([metric, hashes, trained.runner.batch])) as journal,
        ):
            report(0, len(missing), "activation ranges")
            held = calibrate_inputs(
                trained.runner, trained.leaves, images, code_formats(v for _, v in missing), config.ranges
            )
            reference = trained.runner.outputs(images)
            loss = increase(trained.outputs_network, metric, reference, labels)
            inputs: tuple[Leaf, list[Any]] | None = None
            for done, (leaf, variant) in enumerate(missing):
                report(done, len(missing), f"{leaf.name} as {variant}")
                name = json.dumps([leaf.name, variant.encoding, variant.activation, variant.parameters])
                if name not in journal.records:
                    if inputs is None or inputs[0] is not leaf:
                        inputs = (leaf, leaf_inputs(trained.runner, leaf, images))
                    layer = recovered(leaf, variant, held[leaf.name], inputs[1], inputs[1], recoveries(steps))
                    twin = Twin(leaf_simulator(leaf), layer, held[leaf.name])
                    journal.add(name, _increases(trained, leaf, twin, images, loss))
                increases[leaf.name, variant] = journal.records[name]
    zero = np.zeros(len(images), np.float32)
    increases |= {(leaf.name, v): zero for leaf, v in choices if v == FLOAT32}
    profile = LossProfile(metric, hashes, increases)
    if missing:
        profile.save(path)
        path.with_suffix(".journal").unlink(missing_ok=True)  # not before: a process killed in between would lose all
    return profile


def hybrid_hashes(
    trained: HybridTrained,
    images: NDArray[Any],
    labels: NDArray[Any] | None,
    recovery: Sequence[str] = (),
    ranges: str = DEFAULT_RANGES,
) -> dict[str, str]:
    """What the profile depends on: besides the leaves, all weights of the module, and its source as far as there is one
    (control flow is part of the network)."""
    module = trained.runner.module
    state = {name: x.detach().float().cpu().numpy() for name, x in module.state_dict().items() if x.numel()}
    hashes = profile_hashes(trained.network, state, images, labels, SOURCES, recovery, ranges)
    extra = [hashes["data"], trained.runner.preprocessing, trained.runner.batch, *_sources(module)]
    return hashes | {"data": hashlib.sha256(repr(extra).encode()).hexdigest()}


def _sources(module: nn.Module) -> list[str]:
    found = []
    for kind in sorted(
        {type(child) for child in module.modules()}, key=lambda kind: f"{kind.__module__}.{kind.__qualname__}"
    ):
        try:
            found.append(inspect.getsource(kind))
        except (OSError, TypeError):
            found.append(kind.__qualname__)
    return found


def _increases(trained: HybridTrained, leaf: Leaf, twin: Twin, images: NDArray[Any], loss: Increase) -> Vector:
    runner = trained.runner
    found = []
    with runner.swapped({leaf.module: twin}):
        for part in slices(0, len(images), runner.batch):
            found.append(loss(runner.outputs(images[part]), part))
    return np.concatenate(found)
