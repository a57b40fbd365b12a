"""The profiles that a policy rests on, kept beside it where it is carried out."""

from __future__ import annotations

from pathlib import Path

from bitplan.config import Config
from bitplan.errors import BitplanError
from bitplan.policies.policy import Policy
from bitplan.profiles.device import DeviceProfile
from bitplan.profiles.loss import LossProfile
from bitplan.profiling import known_loss_profile
from bitplan.trained import Trained
from bitplan.workflow import DEVICE, LOSS

ORIGIN = ("network", "weights", "data")
"""What both the policy and the losses have the hashes of."""


def keep_profiles(trained: Trained, policy: Policy, device: DeviceProfile | None, beside: Path, config: Config) -> None:
    """Leaves the device profile and the losses that the policy was planned with in the output folder: those of `device` and
    of the cache, or those that lie `beside` the policy. What fits neither is left out."""
    planned_for = policy.hashes.get("device")
    fits = (found for found in (device, _device_in(beside)) if found and planned_for in (None, found.fingerprint.hash))
    if (found := next(fits, None)) is not None:
        found.save(config.output / DEVICE)
    if not keep_loss_profile(beside, policy, config.output):
        known = known_loss_profile(trained, config)
        if known is not None and _belongs(known, policy):
            known.save(config.output / LOSS)


def keep_loss_profile(folder: Path, policy: Policy, output: Path) -> bool:
    """Copies the losses that a policy rests on from one folder to another; whether they are there."""
    try:
        found = LossProfile.load(folder / LOSS)
    except (BitplanError, OSError):
        return False
    if not _belongs(found, policy):
        return False
    found.save(output / LOSS)
    return True


def _belongs(profile: LossProfile, policy: Policy) -> bool:
    """Whether it was measured on what the policy was planned for, and has its choices."""
    pairs = ((policy.hashes.get(name), profile.hashes.get(name)) for name in ORIGIN)
    same = all(mine is not None and mine == theirs for mine, theirs in pairs)
    return same and all(choice in profile.increases for choice in policy.variants.items())


def _device_in(folder: Path) -> DeviceProfile | None:
    try:
        return DeviceProfile.load(folder / DEVICE)
    except (BitplanError, OSError):
        return None
