"""`--jobs 2` through the command: two processes measure, and nothing in the result tells."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bitplan.profiles.loss import LossProfile
from bitplan.profiles.workers import pools

Command = Callable[..., Any]
SUBJECT = ("--model", "tiny_network:build", "--data", "data.npz", "--encodings", "int8,binary")
OPTIONS = (*SUBJECT, "--link-policies", "3", "--device-profile", "device.arrow")


@pytest.fixture
def alone(command: Command, folder: Path, monkeypatch: pytest.MonkeyPatch) -> LossProfile:
    """The profile as one process measures it, in a cache of its own; the next one begins with an empty cache."""
    monkeypatch.setenv("BITPLAN_CACHE", str(folder / "one"))
    called = command("profile", *OPTIONS, "--jobs", "1", "-o", "alone")
    assert called.code == 0, called.err
    monkeypatch.setenv("BITPLAN_CACHE", str(folder / "two"))
    return LossProfile.load(folder / "alone" / "loss.arrow")


def test_profiling_with_two_processes_stores_the_same_bytes(
    alone: LossProfile, command: Command, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []

    class Counted(pools.Processes):
        def __init__(self, size: int) -> None:
            super().__init__(size)
            started.append(size)

    monkeypatch.setattr(pools, "Processes", Counted)
    called = command("profile", *OPTIONS, "--jobs", "2", "-o", "together")
    assert called.code == 0, called.err
    assert started == [2, 2]  # for the choices, and for the policies of the link
    assert (folder / "together" / "loss.arrow").read_bytes() == (folder / "alone" / "loss.arrow").read_bytes()


def test_the_main_job_with_two_processes_is_the_same_job(alone: LossProfile, folder: Path) -> None:
    (folder / "job.py").write_text("from bitplan.cli import main\nif __name__ == '__main__':\n    main()\n")
    job = [sys.executable, "job.py", *OPTIONS, "--compare", "none", "--budget", "3kB", "--jobs", "2", "-o", "out"]
    run = subprocess.run(job, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert run.returncode == 0, run.stderr
    [measured] = (folder / "two" / "loss").glob("*.arrow")
    assert measured.read_bytes() == (folder / "alone" / "loss.arrow").read_bytes()
