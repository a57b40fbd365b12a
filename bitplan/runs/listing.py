"""Finds run folders and says what became of each."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bitplan.errors import FileFormatError
from bitplan.progress.events import stamp
from bitplan.runs.figures import STATUSES, figures_of, is_figure
from bitplan.runs.log import at_work
from bitplan.runs.record import FILE, INTERRUPTED, RUNNING, Record, read_records

RESULT = "result.json"
DAMAGED = "damaged"
UNKNOWN = "?"
"""The command of a folder that was filled before commands kept records."""
USAGE = 2
DEPTH = 6
LIMITS = ("target_latency", "budget", "memory", "max_loss", "max_drop", "full_precision_weights")
"""Options that are shown as they were written."""


@dataclass(frozen=True)
class Found:
    """A run folder by its newest command; `targets` as they were written or, without any, as the result has them;
    `reason`: why the command failed or what is damaged; `commands`: all that are recorded, the oldest first."""

    folder: str
    status: str
    command: str = UNKNOWN
    begun: str | None = None
    seconds: float | None = None
    targets: Mapping[str, Any] = field(default_factory=dict)
    figures: Mapping[str, Any] = field(default_factory=dict)
    reason: str | None = None
    commands: tuple[str, ...] = ()


def list_runs(top: Path, depth: int = DEPTH) -> list[Found]:
    """The run folders in `top` and up to `depth` folders below it, the newest first. Damaged ones are among them."""
    found = [_found(folder, str(folder.relative_to(top))) for folder in _folders(top, depth)]
    return sorted(found, key=lambda one: one.begun or "", reverse=True)


def _folders(top: Path, depth: int) -> Iterator[Path]:
    """Hidden folders, and those that cannot be read, are passed over; links are not followed."""
    try:
        entries = sorted(os.scandir(top), key=lambda entry: entry.name)
    except OSError:
        return
    names = {entry.name for entry in entries}
    if FILE in names or (RESULT in names and _is_result(top / RESULT)):
        yield top
    if depth:
        for entry in entries:
            if not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False):
                yield from _folders(Path(entry.path), depth - 1)


def _found(folder: Path, name: str) -> Found:
    try:
        records = read_records(folder)
    except FileFormatError as error:
        return Found(name, DAMAGED, begun=_changed(folder / FILE), reason=str(error))
    if not records:
        return _unrecorded(folder, name)
    # what could not begin says nothing about the folder, as long as something else did
    record = next((one for one in reversed(records) if one.exit_code != USAGE), records[-1])
    status = record.status
    if status == RUNNING and at_work(folder) is False:
        status = INTERRUPTED
    return Found(
        name,
        status,
        record.command,
        record.begun,
        record.seconds,
        _targets(record),
        record.figures,
        record.error,
        tuple(one.command for one in records),
    )


def _unrecorded(folder: Path, name: str) -> Found:
    """A folder with a result, but without a record."""
    content = _result(folder / RESULT)
    targets = _set(content.get("targets"))
    return Found(name, content["status"], begun=_changed(folder / RESULT), targets=targets, figures=figures_of(content))


def _targets(record: Record) -> dict[str, Any]:
    written = {name: _value(record.options, name) for name in LIMITS}
    given = {name: value for name, value in written.items() if value is not None}
    objective = _value(record.options, "objective")
    given = given or _set(record.targets)
    return given | ({"objective": objective} if given and objective not in (None, "loss") else {})


def _set(targets: Any) -> dict[str, Any]:
    """The limits of a result that there are, and its objective."""
    known = targets.items() if isinstance(targets, Mapping) else ()
    limits = {name: value for name, value in known if is_figure(value)}
    objective = dict(known).get("objective")
    return limits | ({"objective": objective} if objective not in (None, "loss") else {})


def _value(options: Mapping[str, Any], name: str) -> Any:
    option = options.get(name)
    return option.get("value") if isinstance(option, Mapping) else None


def _is_result(path: Path) -> bool:
    return _result(path).get("status") in STATUSES


def _result(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) and "layers" in content else {}


def _changed(path: Path) -> str | None:
    try:
        return stamp(datetime.fromtimestamp(path.stat().st_mtime, UTC))
    except OSError:
        return None
