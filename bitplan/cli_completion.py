"""What the shell completes behind options whose values have names; elsewhere it completes files."""

from __future__ import annotations

from collections.abc import Callable, Iterable


def one_of(names: Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    """Completes one name."""
    return lambda incomplete: [name for name in names() if name.startswith(incomplete)]


def some_of(names: Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    """Completes the last of several names with commas between."""

    def complete(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",")
        return [f"{before}{comma}{name}" for name in names() if name.startswith(last)]

    return complete


def encodings() -> Iterable[str]:
    """Encodings and presets."""
    from bitplan.encodings import BY_NAME
    from bitplan.policies.menu import preset_names

    return (*BY_NAME, *preset_names())


def device_profiles() -> Iterable[str]:
    """Those of the library, and those that come with bitplan."""
    from bitplan.profiles.library import default_folder, recorded_profiles

    return [path.stem for path in (*sorted(default_folder().glob("*.arrow")), *recorded_profiles())]
