"""An append-only file of finished work, so that a measurement that was killed goes on where it was.

One JSON object a line: first a header with the key of the measurement, then records of a name and a float32 vector
(base64) with its CRC-32. A record counts once its line is whole; whatever follows the first damaged one is cut off.
"""

from __future__ import annotations

import base64
import json
import os
import zlib
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from bitplan.file_lock import FileLock

FORM = "bitplan journal 1"


class Journal:
    """Records of one measurement; a file that belongs to another one (another key) is started anew. One process at a time
    has it."""

    def __init__(self, path: Path, key: str) -> None:
        """Raises OSError, with the path, where the file cannot be written, and BusyError where another process has it."""
        self._lock = FileLock(path)
        try:
            self.records, whole = _read(path, key)
            self._file = path.open("r+b" if path.exists() else "w+b")
            self._file.truncate(whole)
            self._file.seek(whole)
            if not whole:
                self._append({"format": FORM, "key": key})
        except BaseException:
            self._lock.release()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._file.close()
        self._lock.release()

    def add(self, name: str, values: NDArray[np.float32]) -> None:
        """Appends a record; it survives the process once this returns."""
        data = np.ascontiguousarray(values, "<f4").tobytes()
        self._append({"name": name, "crc": _checksum(name, data), "values": base64.b64encode(data).decode()})
        self.records[name] = np.frombuffer(data, "<f4").astype(np.float32)

    def _append(self, record: dict[str, object]) -> None:
        self._file.write(json.dumps(record).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())


def _read(path: Path, key: str) -> tuple[dict[str, NDArray[np.float32]], int]:
    """The whole records, and the number of bytes that they and the header take (0: nothing to go on from)."""
    records: dict[str, NDArray[np.float32]] = {}
    if not path.exists():
        return records, 0
    lines = path.read_bytes().splitlines(keepends=True)
    if not lines or not lines[0].endswith(b"\n") or _parsed(lines[0]) != {"format": FORM, "key": key}:
        return records, 0
    whole = len(lines[0])
    for line in lines[1:]:
        record = _parsed(line) if line.endswith(b"\n") else {}
        try:
            name, data = str(record["name"]), base64.b64decode(str(record["values"]), validate=True)
            if record["crc"] != _checksum(name, data):
                break
            records[name] = np.frombuffer(data, "<f4").astype(np.float32)
        except (KeyError, ValueError):
            break
        whole += len(line)
    return records, whole


def _parsed(line: bytes) -> dict[str, object]:
    try:
        record = json.loads(line)
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


def _checksum(name: str, data: bytes) -> int:
    return zlib.crc32(data, zlib.crc32(name.encode()))
