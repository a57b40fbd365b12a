"""`run.json` of a run folder: the commands that worked there, the newest last.

A record is written when its command begins and again when it ends; that of a command that was killed stays as it was, and
counts as interrupted once nobody holds the folder's log open."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from bitplan.atomic_file import write_atomically
from bitplan.errors import FileFormatError
from bitplan.file_lock import FileLock, patiently
from bitplan.progress.valid_json import json_text
from bitplan.runs.figures import is_figure

FILE = "run.json"
FORM, VERSION = "bitplan run", 1
MOST = 20
"""Commands that are kept; older ones are in the log alone."""
RUNNING, INTERRUPTED, FAILED, DONE = "running", "interrupted", "failed", "done"


@dataclass(frozen=True)
class Record:
    """One command. `command` is its name (`optimize`, `plan` ...), `status` RUNNING, INTERRUPTED, FAILED, `infeasible`,
    DONE, or what its result says (`met`, `missed`, `planned`). `options` and `arguments` (those of this command alone):
    by name, `value` and `from`. `figures`: see figures.py. Times are ISO 8601 in UTC."""

    id: str
    command: str
    command_line: list[str]
    cwd: str
    process: int
    begun: str
    status: str = RUNNING
    ended: str | None = None
    seconds: float | None = None
    exit_code: int | None = None
    error: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    machine: Mapping[str, Any] = field(default_factory=dict)
    targets: Mapping[str, Any] | None = None
    figures: Mapping[str, Any] = field(default_factory=dict)


OPTIONAL = type(None)
TYPES: Mapping[str, tuple[type, ...]] = {
    **dict.fromkeys(("id", "command", "begun", "status"), (str,)),
    **dict.fromkeys(("ended", "error"), (str, OPTIONAL)),
    "seconds": (int, float, OPTIONAL),
    "exit_code": (int, OPTIONAL),
    "targets": (dict, OPTIONAL),
    **dict.fromkeys(("options", "figures"), (dict,)),
}
"""Of what the list of runs rests on."""


def read_records(folder: Path) -> list[Record]:
    """The records of a folder, none where it has no run.json. Raises FileFormatError for a damaged one."""
    path = folder / FILE
    try:
        content = json.loads(path.read_bytes())
        if (content["format"], content["version"]) != (FORM, VERSION):
            raise ValueError(f"it is of version {content['version']!r}")
        return [_record(entry) for entry in content["commands"]]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise FileFormatError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FileFormatError(f"{path} is no record of runs ({error}); remove it") from None


def add(folder: Path, record: Record, at_work: bool | None) -> None:
    """Adds the record of a command that begins; those of killed ones become INTERRUPTED unless some command is
    `at_work`. A damaged file is put aside. Raises OSError where the folder cannot be written."""

    def added(known: list[Record]) -> list[Record]:
        if at_work is False:
            known = [replace(one, status=INTERRUPTED) if one.status == RUNNING else one for one in known]
        return [*known, record]

    _change(folder, added)


def put(folder: Path, record: Record) -> None:
    """Writes a record that is known by its id again. Raises OSError."""
    _change(folder, lambda known: [record if one.id == record.id else one for one in known])


def _change(folder: Path, change: Callable[[list[Record]], list[Record]]) -> None:
    path = folder / FILE
    with patiently(lambda: FileLock(path)):
        try:
            known = read_records(folder)
        except FileFormatError:
            os.replace(path, path.with_name(f"{FILE}.damaged"))
            known = []
        commands = [asdict(one) for one in change(known)[-MOST:]]
        text = ",\n".join(json_text(one) for one in commands)
        head = f'{{"format": "{FORM}", "version": {VERSION}, "commands": [\n'
        write_atomically(path, f"{head}{text}\n]}}\n".encode())


def _record(entry: Any) -> Record:
    known = {one.name for one in fields(Record)}
    record = Record(**{name: value for name, value in entry.items() if name in known})
    for name, kinds in TYPES.items():
        if not isinstance(value := getattr(record, name), kinds):
            raise TypeError(f"{name} is {value!r}")
    if wrong := [value for value in record.figures.values() if not is_figure(value)]:
        raise ValueError(f"a figure is {wrong[0]!r}")
    return record
