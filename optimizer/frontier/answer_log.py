"""An append-only file of solved programs, so that a frontier that was killed goes on where it was.

One JSON object a line with its CRC-32: first the key of the work, then records of a name and what was found. A record
counts once its line is whole; whatever follows the first damaged one is cut off.
"""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path
from typing import Any

from bitplan.file_lock import FileLock

FORM = "bitplan answers 1"


class AnswerLog:
    """What was answered, by name; a file that belongs to other work (another key) is started anew. One process at a time
    has it. Without a path nothing is kept."""

    def __init__(self, path: Path | None, key: str) -> None:
        """Raises OSError, with the path, where the file cannot be written, and BusyError where another process has it."""
        self.answers: dict[str, Any] = {}
        self._file = None
        if path is None:
            return
        self._lock = FileLock(path)
        try:
            whole = self._read(path, key)
            self._file = path.open("r+b" if path.exists() else "w+b")
            self._file.truncate(whole)
            self._file.seek(whole)
            if not whole:
                self._append({"format": FORM, "key": key})
        except BaseException:
            self._lock.release()
            raise

    def add(self, name: str, answer: Any) -> None:
        """Keeps an answer (anything that JSON can hold); it survives the process once this returns."""
        self._append({"name": name, "answer": answer})
        self.answers[name] = answer

    def close(self) -> None:
        if self._file:
            self._file.close()
            self._lock.release()

    def _append(self, record: dict[str, Any]) -> None:
        if self._file:
            text = json.dumps(record)
            self._file.write(json.dumps({"crc": zlib.crc32(text.encode()), "record": text}).encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())

    def _read(self, path: Path, key: str) -> int:
        """Takes over the whole records; the number of bytes that they and the header take (0: nothing to go on from)."""
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        if not lines or _record(lines[0]) != {"format": FORM, "key": key}:
            return 0
        whole = len(lines[0])
        for line in lines[1:]:
            record = _record(line)
            if record is None or "name" not in record:
                break
            self.answers[record["name"]] = record["answer"]
            whole += len(line)
        return whole


def _record(line: bytes) -> dict[str, Any] | None:
    """The record of a line; None where the line is damaged or not whole."""
    if not line.endswith(b"\n"):
        return None
    try:
        outer = json.loads(line)
        text = outer["record"]
        return json.loads(text) if zlib.crc32(text.encode()) == outer["crc"] else None
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
