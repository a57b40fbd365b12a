"""The tutorial does what it says, command by command: with the example, and with a reader's own network and images."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch")

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorial.md"
BLOCK = re.compile(r"^```(bash|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def run(kind: str, text: str, folder: Path) -> str:
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    program = ["bash", "-e", "-c"] if kind == "bash" else [sys.executable, "-c"]
    done = subprocess.run([*program, text], cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}"
    return done.stdout


OWN = "## 6. Your own network and images"


def test_every_block_works_in_order_in_an_empty_folder(tmp_path: Path) -> None:
    blocks = BLOCK.findall(TUTORIAL.read_text().partition(OWN)[0])
    assert [kind for kind, _ in blocks] == ["bash", "bash", "bash", "bash", "bash", "python"]
    outputs = [run(kind, text, tmp_path) for kind, text in blocks]
    assert (tmp_path / "first" / "network.bitplan").stat().st_size <= 60_000
    assert (tmp_path / "third" / "policy.json").exists()
    assert (tmp_path / "profiles" / "frontier.html").exists()
    assert (tmp_path / "fifth" / "network.bitplan").stat().st_size <= 50_000
    assert outputs[-1].split()[0] == "met"


def pictures(folder: Path) -> None:
    """What a newcomer has: image files of several sizes and kinds, in a folder for each class and part."""
    rng = np.random.default_rng(0)
    for part, count in (("train", 3), ("val", 1)):
        for number, name in enumerate(("bird", "cat", "dog", "fish")):
            (folder / part / name).mkdir(parents=True)
            for index in range(count):
                size = rng.integers(64, 90, 2)
                image = rng.normal(60 * number, 25, (*size, 3)).clip(0, 255).astype(np.uint8)
                Image.fromarray(image).save(folder / part / name / f"{index:03d}.{'jpg' if index % 2 else 'png'}")


def test_a_newcomers_network_and_image_folder_get_their_report(tmp_path: Path) -> None:
    pictures(tmp_path / "pictures")
    (source, commands) = (text for _, text in BLOCK.findall(TUTORIAL.read_text().partition(OWN)[2]))
    (tmp_path / source.partition("\n")[0].removeprefix("# ")).write_text(source)
    run("python", "import mine, torch\ntorch.save(mine.build()[0].state_dict(), 'weights.pt')", tmp_path)
    output = run("bash", commands, tmp_path)
    assert (tmp_path / "own" / "network.bitplan").stat().st_size <= 500_000
    page = (tmp_path / "own" / "report.html").read_text()
    assert "features.3.squeeze" in page and "classifier.1" in page
    assert "accuracy" in output
