"""One process at a time for files that grow while they are used: an advisory lock on a neighbour file.

The kernel holds the lock for as long as the process lives, however that ends, so a lock never outlives its holder; the
file only says who it is.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self, TypeVar

from bitplan.errors import BusyError

Found = TypeVar("Found")

SUFFIX = ".lock"
POLL, PATIENCE = 0.05, 1.0
"""Seconds between two attempts at what another process holds: for moments, and while it measures."""
UNSUPPORTED = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)
"""What file systems without locks say; nothing is locked there."""


class FileLock:
    """Held from construction to `release`, or to the end of a `with` block."""

    def __init__(self, path: Path) -> None:
        """Locks `path`, which need not exist. Raises BusyError, naming the process, where another holder has it, and
        OSError, with the path, where its folder cannot be written."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path.with_name(path.name + SUFFIX)
        while True:
            self._file = self.path.open("a+b")
            _take(self._file, path)
            if _same_file(self._file, self.path):
                break
            self._file.close()  # the holder before removed it between opening and locking
        self._file.truncate(0)
        self._file.write(str(os.getpid()).encode())
        self._file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.release()

    def release(self) -> None:
        """Lets the next one in; again: nothing happens."""
        if not self._file.closed:
            self.path.unlink(missing_ok=True)
            self._file.close()


def _take(file: BinaryIO, path: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = file.read().decode(errors="replace").strip()
        file.close()
        raise BusyError(
            f"{path} is in use by {f'process {holder}' if holder else 'another process'}: two commands must not measure or "
            "solve the same at once; wait until that one ends, or end it, and run this one again"
        ) from None
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            file.close()
            raise


def _same_file(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def patiently(action: Callable[[], Found], poll: float = POLL) -> Found:
    """What the action returns, as soon as no other process holds what it needs."""
    while True:
        try:
            return action()
        except BusyError:
            time.sleep(poll)
