"""The page on adding an encoding, followed word by word in a copy of the sources."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

from bitplan.encodings import _trellis
from bitplan.kernels import _runtime

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "adding-an-encoding.md"
BLOCK = re.compile(r"^```(bash|python|diff)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SOURCES = (".typing", "bitplan", "profiles", "optimizer", "policies", "kernels", "tests", "pyproject.toml")
WITHOUT_INSTALLED = (
    "import sys\nsys.meta_path[:] = [x for x in sys.meta_path if 'Redirecting' not in type(x).__name__]\n"
)
"""An editable install finds `bitplan` before any path does."""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The sources, with the compiled modules that are installed."""
    tree = tmp_path / "checkout"
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tree / name, True, ignore=shutil.ignore_patterns("__pycache__", "cpp", "*.pyc"))
        else:
            shutil.copy(source, tree / name)
    shutil.copy(_runtime.__file__, tree / "kernels")
    shutil.copy(_trellis.__file__, tree / "bitplan" / "encodings")
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "sitecustomize.py").write_text(WITHOUT_INSTALLED)
    return tree


def run(arguments: list[str], folder: Path, text: str | None = None) -> str:
    paths = (folder.parent / "path", folder / ".typing")
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
        "PYTHONSAFEPATH": "1",  # not the folder `bitplan` of the current one, which has no stages
        "PYTHONDONTWRITEBYTECODE": "1",
        "BITPLAN_CACHE": str(folder.parent / "cache"),
    }
    done = subprocess.run(
        arguments, cwd=folder, env=environment, capture_output=True, text=True, check=False, input=text
    )
    assert done.returncode == 0, f"{arguments} {text}\n{done.stdout}{done.stderr}"
    return done.stdout


def test_every_block_does_what_the_page_says(checkout: Path) -> None:
    outputs = []
    for kind, text in BLOCK.findall(PAGE.read_text()):
        if kind == "diff":
            run(["git", "apply"], checkout, text)
        elif kind == "bash":
            outputs.append(run(["bash", "-e", "-c", text], checkout))
        else:
            (checkout / text.partition("\n")[0].removeprefix("# ")).write_text(text)
    tested, tried = outputs
    assert re.search(r"\d\d passed", tested) and "failed" not in tested
    layers, shape = tried.splitlines()[:2]
    assert "=whole4" in layers and layers.endswith(" met") and shape == "(1, 10)"
    assert (checkout / "whole4-out" / "network.bitplan").stat().st_size <= 7_000
