"""Help fits a screen and names the next step; bash completes commands, options and values."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

COMMANDS = ("plan", "frontier", "realise", "replan", "run", "bench", "report", "doctor", "profile", "study")
COMPLETE = """
eval "$(_OPTIMIZE_COMPLETE=source_bash optimize)"
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
_optimize_completion optimize "${!#}" ""
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(autouse=True)
def screen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def test_help_fits_a_screen_and_names_the_next_step(command: Any) -> None:
    short, whole = command("--help"), command("--help-all")
    assert short.code == whole.code == 0
    lines = short.out.splitlines()
    assert len(lines) < 24 and max(map(len, lines)) <= 80  # a line is left for the prompt
    assert lines[-1].endswith("Next: optimize --budget 60kB, then optimize report")
    assert all(any(line.startswith(f"{name} ") for line in lines) for name in COMMANDS)
    assert "--budget" in short.out
    assert "--polish" not in short.out
    assert "--polish" in whole.out


@pytest.mark.parametrize("name", [*COMMANDS, "profile device", "profile show", "study best"])
def test_help_of_sub_commands_fits_a_screen(command: Any, name: str) -> None:
    short = command(*name.split(), "--help")
    assert short.code == 0
    lines = short.out.splitlines()
    assert len(lines) < 24 and max(map(len, lines)) <= 80
    if "--help-all" in short.out:
        whole = command(*name.split(), "--help-all")
        assert whole.code == 0
        assert "--verbose" in whole.out and "--verbose" not in short.out


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("pro", ["profile"]),
        ("--target", ["--target-latency"]),
        ("profile me", ["merge"]),
        ("--encodings int8,ter", ["int8,ternary"]),
        ("plan --device avx5", ["avx512vnni"]),
    ],
)
def test_bash_completes(words: str, found: list[str], tmp_path: Path) -> None:
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    environment["BITPLAN_PROFILES"] = str(tmp_path)
    done = subprocess.run(
        ["bash", "-c", COMPLETE, "bash", "optimize", *words.split()],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.stdout.split() == found, done.stderr
