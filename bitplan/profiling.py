"""Gets the two profiles that a plan rests on: loads what was measured before, measures what is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from rich.markup import escape

from bitplan.config import Config
from bitplan.errors import UsageError
from bitplan.network import Network
from bitplan.policies.menu import Menu
from bitplan.profiles.device import DeviceProfile, default_path
from bitplan.profiles.executor import Load
from bitplan.profiles.fingerprint import this_machine
from bitplan.profiles.loss import LossProfile, cache_path
from bitplan.profiles.measure_latency import measure as measure_latency
from bitplan.profiles.measure_latency import measure_anchor
from bitplan.profiles.steps import all_keys
from bitplan.progress import Reporter
from bitplan.trained import Trained
from bitplan.variant import Variant


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
    goes on where it was. `what` and `step` are what is timed, in the words of the messages."""
    path = config.device_profile or default_path(this_machine())
    known = DeviceProfile.load(path) if path.exists() else None
    if known:
        known.require_this_machine()
    if known and not known.missing(all_keys(network, menu, config.threads, config.batch)):
        reporter.say(f"device profile: every {step} is known [dim]({escape(str(path))})[/]")
        return at_present_speed(known, reporter)
    with reporter.stage(f"timing {what} on this machine") as report:
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


def loss_profile(trained: Trained, config: Config, reporter: Reporter, menu: Menu | None = None) -> LossProfile:
    """The loss profile of the network on its calibration images, from the cache or measured (resuming what an
    interrupted run had measured)."""
    from bitplan.profiles.measure_loss import measure, profile_hashes
    from bitplan.profiles.metrics import effective_metric

    menu = menu or trained.menu
    count = trained.loss_images(config.loss_size)
    images = trained.data.calibration_x[:count]
    labels = None if trained.data.calibration_y is None else trained.data.calibration_y[:count]
    metric = effective_metric(trained.network, config.loss_metric)
    hashes = profile_hashes(trained.network, trained.weights, images, labels if metric == "task" else None)
    path = config.loss_profile or cache_path(metric, hashes)
    known = LossProfile.load(path) if path.exists() else None
    if config.loss_profile and known and not known.same_origin(metric, hashes):
        raise UsageError(
            f"the loss profile {path} was measured on another network, other images or with other code; "
            "name another file with --loss-profile, or remove this one to measure again"
        )
    if known and known.same_origin(metric, hashes) and all((n, v) in known.increases for n in menu for v in menu[n]):
        reporter.say(f"loss profile: every choice is known [dim]({escape(str(path))})[/]")
        return known
    journal = path.with_suffix(".journal")
    with reporter.stage("measuring the loss of every choice") as report:
        profile = measure(
            trained.network,
            trained.weights,
            images,
            menu,
            labels=labels,
            metric=config.loss_metric,
            checkpoint=journal,
            profile=known,
            progress=report,
        )
    profile.save(path)
    journal.unlink(missing_ok=True)
    return profile
