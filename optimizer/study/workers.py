"""Workers of one study that share a folder: who is alive, and whose turn it is.

Each worker holds a lock on a file of its own for as long as its process lives, however that ends; a trial names its worker.
So whoever sees the folder knows at once that a trial has lost its worker. Workers elsewhere are judged by the heartbeats of
the database.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bitplan.errors import BusyError
from bitplan.file_lock import POLL, SUFFIX, FileLock, patiently

PLACE, TURN = "place", "turn"


class Workers:
    """This worker among those of a folder."""

    def __init__(self, folder: Path) -> None:
        """Raises OSError, with the path, where the folder cannot be written."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        with contextlib.suppress(FileExistsError), (folder / PLACE).open("x") as file:
            file.write(uuid.uuid4().hex)
        self.place = _place(folder / PLACE)
        self.me = uuid.uuid4().hex
        self._life = FileLock(folder / self.me)

    @property
    def name(self) -> str:
        """What a trial that this worker runs is marked with."""
        return f"{self.place}/{self.me}"

    def close(self) -> None:
        self._life.release()

    @contextmanager
    def turn(self) -> Iterator[Turn]:
        """Waits until no other worker of this folder is between counting the trials and beginning one."""
        turn = Turn(patiently(lambda: FileLock(self.folder / TURN)))
        try:
            yield turn
        finally:
            turn.end()

    def lost(self, worker: str) -> bool:
        """Whether the worker of a running trial is known to be gone."""
        place, _, name = worker.partition("/")
        return place == self.place and name != self.me and not self._alive(name)

    def _alive(self, name: str) -> bool:
        if not (self.folder / f"{name}{SUFFIX}").exists():
            return False
        try:
            FileLock(self.folder / name).release()
        except BusyError:
            return True
        return False


class Turn:
    """Ends once, at the first call."""

    def __init__(self, lock: FileLock) -> None:
        self._lock = lock

    def end(self) -> None:
        self._lock.release()


def _place(path: Path) -> str:
    """The identity of the folder; another worker may be about to write it."""
    while not (text := path.read_text()):
        time.sleep(POLL)
    return text
