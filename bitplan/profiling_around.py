"""Gets the loss profile that replanning rests on: what other choices cost in a trained network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from rich.markup import escape

from bitplan.config import Config
from bitplan.errors import DataError
from bitplan.file_lock import FileLock
from bitplan.profiles.estimators import SEPARABLE
from bitplan.profiles.loss import LossProfile, cache_path
from bitplan.profiling import named_workers
from bitplan.progress import Reporter
from bitplan.trained import Trained

if TYPE_CHECKING:
    from bitplan.policies.realise.warm import WarmStart


Part = tuple[NDArray[Any], NDArray[np.int64] | None]
"""Raw images [N, ...], and labels [N] where the loss needs them."""


def calibration_parts(trained: Trained, config: Config) -> tuple[Part, Part]:
    """The calibration images that measuring and recovery may use, and those that recovery holds back. Raises DataError
    where there are too few."""
    from bitplan.policies.realise.recover import HELD_BACK, split

    images, labels = trained.data.calibration_x, trained.data.calibration_y
    chosen, held_back = split(np.arange(len(images)))
    if not (isinstance(chosen, np.ndarray) and isinstance(held_back, np.ndarray)):
        raise DataError(
            f"replanning holds back one of {HELD_BACK} calibration images, and there are {len(images)}; give {HELD_BACK} at "
            "least"
        )
    if config.loss_metric != "task":
        labels = None
    fitted, judging = ((images[part], None if labels is None else labels[part]) for part in (chosen, held_back))
    return fitted, judging


def loss_profile_around(
    trained: Trained, start: WarmStart, config: Config, reporter: Reporter
) -> tuple[WarmStart, LossProfile]:
    """The trained network with the ranges that choices of the menu need, and the losses of these choices in it, from the
    cache or measured (resuming what an interrupted run had measured), on calibration images that are not held back. Raises
    DataError where there are too few, BusyError while another process measures the same."""
    from bitplan.policies.realise.pipeline import code_formats
    from bitplan.profiles.measure_around import around_hashes, expected_cost, measure_around
    from bitplan.profiles.measure_loss import checked_metric
    from bitplan.simulate import Simulator

    (fitted, labels), _ = calibration_parts(trained, config)
    formats = code_formats(variant for variants in trained.menu.values() for variant in variants)
    start = start.with_ranges(Simulator(trained.network, trained.weights), fitted, formats, method=config.ranges)
    count = trained.loss_images(config.loss_size)
    images, labels = fitted[:count], None if labels is None else labels[:count]
    given = trained.network, trained.weights, images
    hashes = around_hashes(*given, start, labels, recovery=config.layer_recovery, ranges=config.ranges)
    metric = checked_metric(trained.network, SEPARABLE, config.loss_metric)
    path = cache_path(metric, hashes)
    if path.exists():
        found = LossProfile.load(path)
        if all((name, variant) in found.increases for name, variants in trained.menu.items() for variant in variants):
            reporter.say(f"losses around the trained network: every choice is known [dim]({escape(str(path))})[/]")
            return start, found
    cost = expected_cost(*given, trained.menu, start)
    reporter.say(
        f"losses around the trained network: at most {cost.evaluations:,} evaluations, worth {cost.passes:,.0f} forward passes "
        f"over {len(images)} images"
    )
    journal = path.with_suffix(".journal")
    with FileLock(path), reporter.stage("measuring other choices in the trained network") as report:
        found = measure_around(
            *given,
            trained.menu,
            start,
            labels=labels,
            metric=config.loss_metric,
            recovery=config.layer_recovery,
            ranges=config.ranges,
            checkpoint=journal,
            progress=report,
            workers=named_workers(config, reporter),
        )
        found.save(path)
        journal.unlink(missing_ok=True)
    return start, found
