"""Locks of files that grow: one holder at a time, who is named, and none that outlives its process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from bitplan.errors import BusyError
from bitplan.file_lock import FileLock
from bitplan.optimizer.frontier.answer_log import AnswerLog
from bitplan.profiles.journal import Journal

HOLDER = """
import sys
from pathlib import Path
from bitplan.file_lock import FileLock
lock = FileLock(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def other(tmp_path):
    """Another process that holds the lock of `file`."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "file")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_the_holder_is_named(tmp_path, other):
    with pytest.raises(BusyError, match=rf"file is in use by process {other.pid}:.*wait until that one ends"):
        FileLock(tmp_path / "file")
    with FileLock(tmp_path / "another file"):
        pass


def test_a_killed_holder_blocks_nobody(tmp_path, other):
    os.kill(other.pid, signal.SIGKILL)
    other.wait()
    assert (tmp_path / "file.lock").read_text() == str(other.pid)  # what it left behind
    with FileLock(tmp_path / "file"):
        assert (tmp_path / "file.lock").read_text() == str(os.getpid())


def test_a_released_lock_leaves_nothing(tmp_path):
    lock = FileLock(tmp_path / "folder" / "file")
    lock.release()
    lock.release()
    assert not list((tmp_path / "folder").iterdir())


def test_a_lock_file_that_was_removed_before_it_was_locked_counts_for_nothing(tmp_path, monkeypatch):
    import bitplan.file_lock as module

    take, removed = module._take, []

    def slowly(file, path):
        take(file, path)
        if not removed:  # the holder before is done just now
            removed.append(path)
            (tmp_path / "file.lock").unlink()

    monkeypatch.setattr(module, "_take", slowly)
    with FileLock(tmp_path / "file"), pytest.raises(BusyError, match=f"process {os.getpid()}"):
        FileLock(tmp_path / "file")


@pytest.mark.parametrize("opened", [Journal, AnswerLog])
def test_a_journal_is_untouched_while_another_process_writes_it(tmp_path, other, opened):
    (tmp_path / "file").write_bytes(b"what the other one has written")
    with pytest.raises(BusyError, match=f"process {other.pid}"):
        opened(tmp_path / "file", "key")
    assert (tmp_path / "file").read_bytes() == b"what the other one has written"


def test_a_journal_that_is_closed_can_be_opened_again(tmp_path):
    with Journal(tmp_path / "journal", "key") as journal:
        journal.add("unit", np.zeros(2, np.float32))
    with Journal(tmp_path / "journal", "key") as journal:
        assert list(journal.records) == ["unit"]
    log = AnswerLog(tmp_path / "answers", "key")
    log.add("solve", 1)
    log.close()
    log.close()
    again = AnswerLog(tmp_path / "answers", "key")
    assert again.answers == {"solve": 1}
    again.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["answers", "journal"]


@pytest.mark.parametrize("opened", [Journal, AnswerLog])
def test_a_journal_that_cannot_be_written_is_not_locked(tmp_path, opened):
    (tmp_path / "file").mkdir()
    with pytest.raises(OSError, match="file"):
        opened(tmp_path / "file", "key")
    with FileLock(tmp_path / "file"):
        pass
