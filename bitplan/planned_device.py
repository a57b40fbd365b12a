"""The device profile that a plan is made for, of this machine or of another: read, judged, and completed by estimates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rich.markup import escape

from bitplan.config import Config
from bitplan.network import Network
from bitplan.policies.policy import Policy
from bitplan.profiles.device import DeviceProfile, Latency
from bitplan.profiles.library import profile_path, recorded_profiles
from bitplan.profiles.staleness import standing, this_machine_if_known
from bitplan.profiles.steps import all_keys
from bitplan.progress import Reporter
from bitplan.variant import Variant


def planned_device(
    named: Path, network: Network, menu: Mapping[str, Sequence[Variant]], config: Config, reporter: Reporter
) -> DeviceProfile:
    """The profile with a latency for every step that the menu can need; what was not timed is estimated, with `margin` error
    bars added. Says whose profile it is, what has changed since, and how many steps are estimates. Raises UsageError
    where something can be neither found nor estimated."""
    path = profile_path(named)
    profile = DeviceProfile.load(path)
    found = standing(profile.fingerprint, this_machine_if_known(), path in recorded_profiles())
    if found.reasons:
        reporter.warn(f"the device profile {escape(str(path))} is {escape(str(found))}; record it anew there")
    elif found.here is not True:
        machine = profile.fingerprint
        reporter.say(f"planning ahead for {escape(machine.cpu)} at the level {escape(machine.isa)}")
    keys = all_keys(network, menu, config.threads, config.batch)
    if not profile.missing(keys):
        return profile
    from bitplan.profiles.estimates import completed  # here, because it takes long to load and most plans need it not

    profile = with_margin(completed(profile, keys), config.margin)
    estimated = len(profile.missing(keys))
    reporter.warn(
        f"{estimated} of the {len(keys)} steps that the menu can need were not timed: their latencies are "
        f"estimates, {config.margin:g} error bars added (--margin)"
    )
    return profile


def with_margin(profile: DeviceProfile, margin: float) -> DeviceProfile:
    """The profile with every estimate later by `margin` error bars; the bars stay as long as they are."""
    moved = {key: _later(latency, margin) for key, latency in profile.entries.items() if latency.estimated}
    return replace(profile, entries={**profile.entries, **moved})


def with_margin_noted(policy: Policy, margin: float) -> Policy:
    """The policy, with the margin beside the estimates that it rests on."""
    estimates = policy.settings.get("estimates")
    if not isinstance(estimates, Mapping):
        return policy
    return replace(policy, settings={**policy.settings, "estimates": {**estimates, "margin": margin}})


def said_of_estimates(policy: Policy) -> str | None:
    """How much of a policy's latency is estimated, for people; None where nothing is."""
    estimates = policy.settings.get("estimates")
    if not isinstance(estimates, Mapping):
        return None
    return (
        f"of {policy.predicted['latency_ms']:.3f} ms, {estimates['latency_ms']:.3f} ms of {len(estimates['steps'])} steps "
        f"are estimates, with error bars of {estimates['error_ms']:.3f} ms together"
    )


def _later(latency: Latency, margin: float) -> Latency:
    more = margin * latency.error
    return replace(latency, median=latency.median + more, low=latency.low + more, high=latency.high + more)
