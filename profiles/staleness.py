"""Whether a device profile still holds: what has changed on its machine since it was recorded.

A profile is stale where other kernels are installed here than it was timed with (their version is part of the
fingerprint), whatever machine it is of. One of this machine is, too, where another level of them is in use, or where the
processor's frequency is governed by another policy; of another machine nobody here can tell.
"""

from __future__ import annotations

from dataclasses import dataclass

from bitplan.profiles.fingerprint import Fingerprint, this_machine


@dataclass(frozen=True, slots=True)
class Standing:
    """What a profile is to this machine: `here` tells whether it was recorded on it (None: unknown, for the kernels that
    tell are not built); `reasons`: why it is stale, in words; empty if it is not."""

    here: bool | None
    reasons: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.reasons:
            return "stale: " + "; ".join(self.reasons)
        return {None: "not known here", True: "this machine", False: "another machine"}[self.here]


def standing(recorded: Fingerprint, here: Fingerprint | None, example: bool = False) -> Standing:
    """Compares a profile's fingerprint with that of this machine (None where it cannot be taken). `example`: one that comes
    with bitplan, to plan ahead with for its own level whatever is in use here, so that its machine counts as another one and
    only other kernels make it stale."""
    if here is None:
        return Standing(None)
    if example or (recorded.cpu, recorded.cores, recorded.features) != (here.cpu, here.cores, here.features):
        reasons = [] if recorded.kernel_version == here.kernel_version else [_kernels(recorded, here)]
        return Standing(False, tuple(reasons))
    reasons = []
    if recorded.kernel_version != here.kernel_version:
        reasons.append(_kernels(recorded, here))
    if recorded.isa != here.isa:
        reasons.append(f"timed at the level {recorded.isa}, while {here.isa} is in use (BITPLAN_ISA chooses)")
    if recorded.governor != here.governor:
        now = here.governor or "unknown"
        reasons.append(f"timed under the frequency policy {recorded.governor or 'unknown'}, which is {now} now")
    return Standing(True, tuple(reasons))


def _kernels(recorded: Fingerprint, here: Fingerprint) -> str:
    return f"timed with kernels of version {recorded.kernel_version}, while version {here.kernel_version} is installed"


def this_machine_if_known() -> Fingerprint | None:
    """The fingerprint of this machine; None where the kernels are not built."""
    try:
        return this_machine()
    except ImportError:
        return None


__all__ = ["Standing", "standing", "this_machine_if_known"]
