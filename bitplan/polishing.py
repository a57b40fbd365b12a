"""`--polish`: swaps of the plan that lower the loss as it is really measured, with recovery, on calibration images."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitplan.config import Config
from bitplan.errors import DataError, UsageError
from bitplan.optimizer.polish import Evaluate, Losses, Measured, polish
from bitplan.policies.policy import Policy
from bitplan.profiles.device import DeviceProfile
from bitplan.profiles.loss import LossProfile, cache_folder
from bitplan.progress import Reporter, duration
from bitplan.targets import Targets
from bitplan.trained import Trained
from bitplan.variant import Variant


def check_polish(config: Config, targets: Targets) -> None:
    """Raises UsageError, before anything long begins, for what cannot be polished."""
    if not config.polish:
        return
    if config.hybrid:
        raise UsageError("--polish measures whole captured networks; leave out --hybrid or --polish")
    if targets.objective != "loss":
        raise UsageError(f"--polish lowers the loss, but the objective is {targets.objective}; leave one of them out")
    if config.polish < 2:
        raise UsageError("--polish 1 measures nothing but the plan itself; allow more, such as --polish 150")


def polished(
    trained: Trained,
    policy: Policy,
    loss: LossProfile,
    device: DeviceProfile | None,
    targets: Targets,
    config: Config,
    reporter: Reporter,
) -> Policy:
    """The policy after swaps within `targets`: half of the calibration images, drawn by the seed, fit the recovery, the
    others are held back, and a swap has to help on both. An interrupted search goes on where it was."""
    from bitplan.profiles.measure_loss import CODE, profile_hashes
    from bitplan.true_loss import TrueLoss

    halves = _halves(trained.loss_images(config.loss_size), config.seed)
    images, known = trained.data.calibration_x, trained.data.calibration_y
    labels = tuple(None if known is None or loss.metric != "task" else known[half] for half in halves)
    parts = tuple(np.ascontiguousarray(images[half]) for half in halves)
    sources = CODE | {"bitplan": (*CODE["bitplan"], "true_loss.py")}
    hashes = [
        profile_hashes(trained.network, trained.weights, part, label, sources, config.layer_recovery, config.ranges)
        for part, label in zip(parts, labels, strict=True)
    ]
    key = hashlib.sha256(json.dumps([loss.metric, hashes]).encode()).hexdigest()[:32]
    reporter.say(
        f"polishing measures at most {config.polish} policies, each fitted to {len(parts[0])} images and measured on them "
        f"and {len(parts[1])} others"
    )
    with reporter.stage(f"polishing the plan, {config.polish} evaluations at most") as report:
        report(0, config.polish, "activation ranges")
        evaluate = TrueLoss(
            trained.network,
            trained.weights,
            (parts[0], parts[1]),
            trained.menu,
            metric=loss.metric,
            labels=(labels[0], labels[1]),
            recovery=config.layer_recovery,
            range_method=config.ranges,
        )
        found = polish(
            trained.network,
            policy,
            loss,
            device,
            targets,
            trained.menu,
            _telling_time(evaluate, config.polish, reporter),
            evaluations=config.polish,
            threads=config.threads,
            batch=config.batch,
            journal=cache_folder() / "polish" / f"{key}.journal",
            key=key,
            progress=report,
        )
    passes = evaluate.walked / max(len(trained.network.layers), 1)
    reporter.say(
        f"polished: {len(found.swaps)} swaps accepted in {found.evaluations} evaluations ({passes:.0f} whole networks "
        f"realised); loss {_written(found.before)} -> {_written(found.after)} (fitted, held back)"
    )
    return found.policy


def _telling_time(evaluate: Evaluate, evaluations: int, reporter: Reporter) -> Evaluate:
    """The same; behind the first policy it says what all will take. That one is realised whole, later ones from the first
    layer that differs."""
    told = False

    def called(variants: Mapping[str, Variant]) -> tuple[Losses, Losses]:
        nonlocal told
        begin = time.perf_counter()
        halves = evaluate(variants)
        if not told:
            most = evaluations * (time.perf_counter() - begin)
            reporter.say(f"polishing takes {duration(most)} at most, about {duration(most / 2)} as a rule")
            told = True
        return halves

    return called


def _halves(count: int, seed: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """The numbers of the images that recovery is fitted to, and of those held back. Raises DataError below two."""
    if count < 2:
        raise DataError(f"--polish holds back half of the calibration images, and there is {count}; give at least two")
    order = np.random.default_rng(seed).permutation(count)
    return np.sort(order[: count // 2]), np.sort(order[count // 2 :])


def _written(loss: Measured) -> str:
    return f"{loss.fitted:.4g}, {loss.held_back:.4g}"
