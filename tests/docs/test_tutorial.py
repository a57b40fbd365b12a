"""The tutorial does what it says, command by command."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorial.md"
BLOCK = re.compile(r"^```(bash|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def run(kind: str, text: str, folder: Path) -> str:
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    program = ["bash", "-e", "-c"] if kind == "bash" else [sys.executable, "-c"]
    done = subprocess.run([*program, text], cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}"
    return done.stdout


def test_every_block_works_in_order_in_an_empty_folder(tmp_path: Path) -> None:
    blocks = BLOCK.findall(TUTORIAL.read_text())
    assert [kind for kind, _ in blocks] == ["bash", "bash", "bash", "bash", "bash", "python"]
    outputs = [run(kind, text, tmp_path) for kind, text in blocks]
    assert (tmp_path / "first" / "network.bitplan").stat().st_size <= 60_000
    assert (tmp_path / "third" / "policy.json").exists()
    assert (tmp_path / "profiles" / "frontier.html").exists()
    assert (tmp_path / "fifth" / "network.bitplan").stat().st_size <= 50_000
    assert outputs[-1].split()[0] == "met"
