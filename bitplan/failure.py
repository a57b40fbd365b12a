"""Why a command ends without success: in words, by kind, and as exit code."""

from __future__ import annotations

import traceback
from dataclasses import dataclass, field
from typing import Any

import typer

from bitplan.errors import (
    BitplanError,
    BusyError,
    DataError,
    FileFormatError,
    InfeasibleError,
    UnsupportedError,
    UsageError,
)

INTERRUPTED = 130
USAGE, INFEASIBLE, BROKEN_OFF, SYSTEM, INTERNAL, OTHER = (
    "usage",
    "infeasible",
    "interrupted",
    "system",
    "internal",
    "other",
)
KINDS: dict[type[BitplanError], str] = {
    UsageError: USAGE,
    InfeasibleError: INFEASIBLE,
    UnsupportedError: "unsupported",
    DataError: "data",
    FileFormatError: "file_format",
    BusyError: "busy",
}
ClickError: type[Exception] = typer.BadParameter.__mro__[2]
"""ClickException, of click or of the copy that newer versions of typer carry: an option or argument is wrong."""


@dataclass(frozen=True)
class Failure:
    """`more`: `details` of an infeasible task, `traceback` of an error that nobody foresaw."""

    text: str
    kind: str
    exit_code: int
    more: dict[str, Any] = field(default_factory=dict)


def failure_of(error: BaseException) -> Failure:
    """What an exception that ends a command means."""
    if isinstance(error, BitplanError):
        kind = next((kind for known, kind in KINDS.items() if isinstance(error, known)), OTHER)
        details = error.details if isinstance(error, InfeasibleError) else None
        return Failure(str(error), kind, error.exit_code, {} if details is None else {"details": details})
    if isinstance(error, typer.Abort | KeyboardInterrupt):
        text = "interrupted; what was measured is kept, run the same command again to go on"
        return Failure(text, BROKEN_OFF, INTERRUPTED)
    if isinstance(error, ClickError):
        return Failure(getattr(error, "format_message", error.__str__)(), USAGE, UsageError.exit_code)
    if isinstance(error, OSError):
        place = f" ({error.filename})" if error.filename else ""
        text = f"{error.strerror or error}{place}; check the path, its permissions and the free space"
        return Failure(text, SYSTEM, 1)
    found = "".join(traceback.format_exception(error))
    return Failure(f"{type(error).__name__}: {error}", INTERNAL, 1, {"traceback": found})
