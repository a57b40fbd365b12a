"""Gets the two profiles that a plan rests on: loads what was measured before, measures what is missing."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from rich.markup import escape

from bitplan.config import Config
from bitplan.errors import UsageError
from bitplan.file_lock import FileLock
from bitplan.network import Network
from bitplan.policies.menu import Menu
from bitplan.profiles.device import DeviceProfile
from bitplan.profiles.estimators import DEFAULT, ESTIMATORS
from bitplan.profiles.executor import Load
from bitplan.profiles.fingerprint import this_machine
from bitplan.profiles.library import default_path, writable_profile_path
from bitplan.profiles.link import Link
from bitplan.profiles.loss import LossProfile, cache_path
from bitplan.profiles.measure_latency import measure as measure_latency
from bitplan.profiles.measure_latency import measure_anchor
from bitplan.profiles.staleness import standing
from bitplan.profiles.steps import all_keys
from bitplan.profiles.workers import Workers
from bitplan.progress import Reporter, duration
from bitplan.suggest import suggestion
from bitplan.trained import Trained
from bitplan.variant import Variant

SUFFIX = ".arrow"


def device_profile(trained: Trained, config: Config, reporter: Reporter) -> DeviceProfile:
    """The device profile of this machine with every step that the menu can need."""
    return known_or_timed(trained.network, trained.menu, config, reporter)


def known_or_timed(
    network: Network,
    menu: Mapping[str, Sequence[Variant]],
    config: Config,
    reporter: Reporter,
    *,
    what: str = "kernels",
    step: str = "step",
    load: Load | None = None,
) -> DeviceProfile:
    """The device profile of this machine with every step of these choices, brought to the machine's present speed; what
    it lacks is timed, with the executors that `load` makes. What is measured is saved at once, so that an interrupted run
    goes on where it was. `what` and `step` are what is timed, in the words of the messages. Raises BusyError while
    another process times steps of the same profile."""
    here = this_machine()
    path = writable_profile_path(config.device_profile) if config.device_profile else default_path(here)
    known = DeviceProfile.load(path) if path.exists() else None
    if known:
        known.require_this_machine()
        for reason in standing(known.fingerprint, here).reasons:  # what does not keep latencies from being compared
            reporter.warn(f"the device profile was {escape(reason)}")
    if known and not known.missing(all_keys(network, menu, config.threads, config.batch)):
        reporter.say(f"device profile: every {step} is known [dim]({escape(str(path))})[/]")
        return at_present_speed(known, reporter)
    # two that time at once would disturb each other, and the one that saves last would drop what the other has timed
    with FileLock(path), reporter.stage(f"timing {what} on this machine") as report:
        known = DeviceProfile.load(path) if path.exists() else None
        profile = measure_latency(
            network,
            menu,
            threads=config.threads,
            batch=config.batch,
            profile=known,
            progress=lambda done, total: report(done, total, ""),
            save=lambda profile: profile.save(path),
            load=load,
        )
    # New steps were brought to the speed of the old ones.
    return at_present_speed(profile, reporter) if known else profile


def at_present_speed(profile: DeviceProfile, reporter: Reporter) -> DeviceProfile:
    """The profile scaled by how much slower or faster its anchor runs now."""
    now = measure_anchor()
    drift = profile.drift(now)
    reporter.say(f"the machine runs at {1 / drift:.2f} times the speed it was profiled at")
    entries = {key: latency.scaled(drift) for key, latency in profile.entries.items()}
    return replace(profile, anchor=now, entries=entries)


def named_estimator(config: Config) -> tuple[str | None, Path | None]:
    """What `loss_profile` names: an estimator, or an Arrow file. Raises UsageError for a text that is neither."""
    value = config.loss_profile
    if value is None or str(value) in ESTIMATORS:
        return (None if value is None else str(value)), None
    if value.suffix != SUFFIX and not value.exists():
        raise UsageError(
            f"loss_profile {str(value)!r} is neither an estimator nor a file; "
            f"{suggestion(str(value), ESTIMATORS, 'estimators')} or name a file {SUFFIX}"
        )
    return None, value


def named_workers(config: Config, reporter: Reporter) -> Workers:
    """Who evaluates what losses are found from."""
    return Workers(config.jobs, config.backend, config.cluster, lambda text: reporter.warn(escape(text)))


def stored_loss_profile(config: Config, usual: Path) -> LossProfile:
    """The file that `loss_profile` names, else the usual one. Raises UsageError where that does not come from the
    estimator that is asked for."""
    named, file = named_estimator(config)
    profile = LossProfile.load(file or usual)
    if named and profile.estimator != named:
        raise UsageError(
            f"{usual} was measured by the estimator {profile.estimator}; "
            f"measure again with: optimize profile --loss-profile {named}"
        )
    return profile


def loss_profile(trained: Trained, config: Config, reporter: Reporter, menu: Menu | None = None) -> LossProfile:
    """The loss profile of the network on its calibration images, from the cache or measured (resuming what an
    interrupted run had measured), with its link. Raises BusyError while another process
    measures the same."""
    from bitplan.profiles.measure_loss import measure

    menu = menu or trained.menu
    _, file = named_estimator(config)
    known = LossProfile.load(file) if file and file.exists() else None
    images, labels = _loss_images(trained, config)
    estimator, metric, hashes = _origin(trained, config, known.estimator if known else DEFAULT)
    path = file or cache_path(metric, hashes, estimator)
    if known is None and path.exists():
        known = LossProfile.load(path)
    if known and not known.same_origin(metric, hashes, estimator):
        raise UsageError(
            f"the loss profile {path} was measured on another network, other images, for other steps of recovery or with other code; "
            "name another file with --loss-profile, or remove this one to measure again"
        )
    if known and all((n, v) in known.increases for n in menu for v in menu[n]):
        reporter.say(f"loss profile: every choice is known [dim]({escape(str(path))})[/]")
        if file and known.link != Link():
            return known  # a file that is named is used as it is
        return _with_link(known, path, trained, config, reporter, menu)
    journal = path.with_suffix(".journal")
    reporter.say(_stated_cost(trained, images, menu, estimator, config.loss_metric))
    with FileLock(path), reporter.stage("measuring the loss of every choice") as report:
        if file is None and path.exists():
            known = LossProfile.load(path)  # another process may have added to it before the lock was ours
        profile = measure(
            trained.network,
            trained.weights,
            images,
            menu,
            estimator=estimator,
            labels=labels,
            metric=config.loss_metric,
            recovery=config.layer_recovery,
            ranges=config.ranges,
            checkpoint=journal,
            profile=known,
            progress=report,
            workers=named_workers(config, reporter),
        )
        profile.save(path)
        journal.unlink(missing_ok=True)
    return _with_link(profile, path, trained, config, reporter, menu)


def known_loss_profile(trained: Trained, config: Config) -> LossProfile | None:
    """What `loss_profile` would begin with, without measuring anything; None where nothing is known."""
    _, file = named_estimator(config)
    estimator, metric, hashes = _origin(trained, config, DEFAULT)
    path = file or cache_path(metric, hashes, estimator)
    return LossProfile.load(path) if path.exists() else None


def _loss_images(trained: Trained, config: Config) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """The raw images, and labels if there are any, that losses are measured on."""
    count = trained.loss_images(config.loss_size)
    labels = trained.data.calibration_y
    return trained.data.calibration_x[:count], None if labels is None else labels[:count]


def _origin(trained: Trained, config: Config, otherwise: str) -> tuple[str, str, dict[str, str]]:
    """The estimator that is named, or `otherwise`; the metric; and the hashes of what losses are measured on."""
    from bitplan.profiles.measure_loss import checked_metric, profile_hashes

    estimator = named_estimator(config)[0] or otherwise
    images, labels = _loss_images(trained, config)
    metric = checked_metric(trained.network, estimator, config.loss_metric)
    used = labels if metric == "task" else None
    hashes = profile_hashes(
        trained.network, trained.weights, images, used, recovery=config.layer_recovery, ranges=config.ranges
    )
    return estimator, metric, hashes


def _stated_cost(trained: Trained, images: NDArray[Any], menu: Menu, estimator: str, metric: str) -> str:
    """The cost of measuring everything, and the time that it would take one process, by the time of one batch."""
    from bitplan.policies.realise.front import default_batch
    from bitplan.profiles.measure_loss import expected_cost
    from bitplan.profiles.workers import one_thread
    from bitplan.simulate import Simulator

    cost = expected_cost(trained.network, trained.weights, images, menu, estimator, metric)
    simulator, batch = Simulator(trained.network, trained.weights), default_batch(trained.network)
    seconds = []
    for _ in range(2):  # the first also warms up
        begin = time.perf_counter()
        with one_thread():
            simulator.outputs(images[:batch])
        seconds.append(time.perf_counter() - begin)
    expected = cost.passes * seconds[-1] * len(images) / len(images[:batch])
    return (
        f"{estimator}, {ESTIMATORS[estimator].summary}: at most {cost.evaluations:,} evaluations, worth {cost.passes:,.0f} forward passes over "
        f"{len(images)} images: about {duration(expected)} in one process"
    )


def _with_link(
    profile: LossProfile, path: Path, trained: Trained, config: Config, reporter: Reporter, menu: Menu
) -> LossProfile:
    """The profile with a link of as many policies as are wanted, fitted and saved where it has none such; without one if
    none is wanted."""
    if not config.link_policies:
        return _scale_said(replace(profile, link=Link(), link_policies=0), reporter)
    if profile.link_policies == config.link_policies:
        return _scale_said(profile, reporter)
    from bitplan.profiles.measure_link import calibrated

    journal = path.with_suffix(".link.journal")
    with FileLock(path), reporter.stage("measuring whole policies, to calibrate predicted losses") as report:
        found = calibrated(
            trained.network,
            trained.weights,
            trained.data.calibration_x,
            menu,
            profile,
            policies=config.link_policies,
            labels=trained.data.calibration_y,
            recovery=config.layer_recovery,
            range_method=config.ranges,
            seed=config.seed,
            checkpoint=journal,
            progress=report,
            workers=named_workers(config, reporter),
        )
        found.profile.save(path)
        journal.unlink(missing_ok=True)
    reporter.say(
        "predicted and measured losses: "
        + ", ".join(
            f"{predicted:.3g} / {measured:.3g}"
            for predicted, measured in zip(found.predicted, found.losses, strict=True)
        )
    )
    return _scale_said(found.profile, reporter)


def _scale_said(profile: LossProfile, reporter: Reporter) -> LossProfile:
    """The profile; that its losses are none of the metric is said."""
    if profile.scale != profile.metric:
        reporter.warn(
            f"predicted losses are not calibrated: they, and a limit on them, are in {profile.scale}, not in "
            f"{profile.metric}"
        )
    return profile
