"""The library: a folder of device profiles, one file for each machine and its kernels, found again by fingerprint."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from bitplan.errors import FileFormatError, UsageError
from bitplan.profiles.device import DeviceProfile
from bitplan.profiles.fingerprint import Fingerprint

SUFFIX = ".arrow"


def default_folder() -> Path:
    """Where device profiles are kept: $BITPLAN_PROFILES, else $BITPLAN_CACHE/profiles, else ~/.cache/bitplan/profiles."""
    if named := os.environ.get("BITPLAN_PROFILES"):
        return Path(named)
    cache = os.environ.get("BITPLAN_CACHE")
    return (Path(cache) if cache else Path.home() / ".cache" / "bitplan") / "profiles"


def default_path(fingerprint: Fingerprint) -> Path:
    """The file of one machine and its kernels."""
    return default_folder() / f"{fingerprint.hash}{SUFFIX}"


def profile_path(named: Path) -> Path:
    """The file that a user means: a path, a folder with a device.arrow, or the name of a profile in the library or of one
    that comes with bitplan; the beginning of a name suffices. Raises UsageError where none of these exists, or several
    profiles begin so."""
    if named.is_dir():
        return named / f"device{SUFFIX}"
    if named.exists() or named.suffix == SUFFIX or named.parent != Path("."):
        return named
    known = [*sorted(default_folder().glob(f"*{SUFFIX}")), *recorded_profiles()]
    found = [path for path in known if path.stem == named.name] or [p for p in known if p.stem.startswith(named.name)]
    if len(found) != 1:
        wrong = f"{len(found)} profiles of the library begin with it" if found else "the library has none of this name"
        raise UsageError(
            f"the device profile {str(named)!r} is no file, and {wrong} ({default_folder()}); "
            "see what is there with: optimize profile list"
        )
    return found[0]


def writable_profile_path(named: Path) -> Path:
    """The same for a profile that measurements are added to. Raises UsageError, too, for one that comes with bitplan."""
    path = profile_path(named)
    if path in recorded_profiles():
        raise UsageError(
            f"the device profile {str(named)!r} comes with bitplan and stays as it is; plan with it by "
            f"`optimize plan --device {named}`, or name a file of your own for what is measured here"
        )
    return path


def recorded_profiles() -> tuple[Path, ...]:
    """The profiles that come with bitplan, by name: of one machine at several levels of kernels."""
    return tuple(sorted(Path(__file__).with_name("recorded").glob(f"*{SUFFIX}")))


def stored_profiles() -> Iterator[tuple[Path, DeviceProfile | str]]:
    """Every file of the library and every one that comes with bitplan, with its profile or, in words, why it cannot be
    read."""
    for path in (*sorted(default_folder().glob(f"*{SUFFIX}")), *recorded_profiles()):
        try:
            yield path, DeviceProfile.load(path)
        except FileFormatError as error:
            yield path, str(error)


__all__ = [
    "default_folder",
    "default_path",
    "profile_path",
    "recorded_profiles",
    "stored_profiles",
    "writable_profile_path",
]
