"""The packages that bitplan works with: those that it needs, and those that extras bring."""

from __future__ import annotations

import re
from importlib import metadata

NAME = re.compile(r"^([A-Za-z0-9._-]+)")
EXTRA = re.compile(r"extra\s*==\s*['\"]([^'\"]+)['\"]")
OURS = "bitplan"


def requirements() -> dict[str, tuple[str, ...]]:
    """By package: the extras that bring it; none for one that is always needed."""
    found: dict[str, tuple[str, ...]] = {}
    for line in metadata.requires(OURS) or ():
        name = NAME.match(line)
        extra = EXTRA.search(line)
        if name:
            known = found.get(name[1], ())
            found[name[1]] = (*known, extra[1]) if extra else known
    return found


def installed(package: str) -> str | None:
    """The version of a package; None where it is not installed. Nothing is imported."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
