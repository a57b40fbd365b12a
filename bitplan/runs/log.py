"""The log of a run folder: everything that commands say there, also what only -v shows, one after the other."""

from __future__ import annotations

import errno
import fcntl
from pathlib import Path
from typing import BinaryIO

from bitplan.file_lock import UNSUPPORTED
from bitplan.progress.events import BEGUN, ENDED, MESSAGE, PROGRESS, RESULT, Event
from bitplan.progress.pace import Pace
from bitplan.progress.people import LINE_INTERVAL, progress_text
from bitplan.runs.secrets import redacted

LOG = "run.log"


class RunLog:
    """Appends a line for every event. While it is open it shares a lock on the file, which the system releases however
    the process ends: so it shows that a command is at work."""

    def __init__(self, path: Path) -> None:
        """Raises OSError where the file cannot be written."""
        self._file = path.open("ab", buffering=0)
        self._pace = Pace(LINE_INTERVAL, ends=False)
        try:
            fcntl.flock(self._file, fcntl.LOCK_SH)
        except OSError as error:
            if error.errno not in UNSUPPORTED:
                raise

    def __call__(self, event: Event) -> None:
        if event.name == RESULT or (event.name == PROGRESS and not self._pace.due(event)):
            return
        if event.name == ENDED:
            self._pace.forget(event)
        self._write(f"{event.to_json()['time']} {redacted(_text(event))}\n")

    def close(self) -> None:
        self._file.close()

    def _write(self, line: str) -> None:
        """One write a line: commands that share the log do not mix theirs. What does not fit on the disk is left out."""
        try:
            self._file.write(line.encode(errors="replace"))
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise


def at_work(folder: Path) -> bool | None:
    """Whether some command has the log of this folder open; None where the file system cannot tell."""
    try:
        with (folder / LOG).open("rb") as file:
            return not _free(file)
    except FileNotFoundError:
        return False
    except OSError:
        return None


def _free(file: BinaryIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _text(event: Event) -> str:
    fields = event.fields
    if event.name == BEGUN:
        return f"begun: {fields['stage']}"
    if event.name == ENDED:
        return f"{fields['outcome']}: {fields['stage']} ({fields['stage_seconds']:.1f} s)"
    if event.name == PROGRESS:
        return progress_text(event)
    said = event.text if event.name == MESSAGE else f"{event.name}: {event.text}"
    return f"\n{said}" if "\n" in said else said
