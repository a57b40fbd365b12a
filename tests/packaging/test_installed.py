"""The installed package has everything that it reads, and nothing that only building needs."""

from __future__ import annotations

import json
from importlib import metadata, resources
from pathlib import Path

import pytest

NEEDED = [
    ("bitplan", "py.typed"),
    ("bitplan.example", "images.npz"),
    ("bitplan.example", "weights.safetensors"),
    ("bitplan.policies", "schema.json"),
    ("bitplan.policies", "FORMAT.md"),
    ("bitplan.policies", "presets/default.yaml"),
    ("bitplan.policies", "presets/eight-bit.yaml"),
    ("bitplan.policies", "presets/integers.yaml"),
    ("bitplan.policies", "presets/low-bit.yaml"),
    ("bitplan.policies.realise.finetune.rules", "apb.py"),
    ("bitplan.optimizer.frontier", "page.html"),
    ("bitplan.progress", "schema.json"),
    ("bitplan.report", "page.css"),
    ("bitplan.report", "page.html"),
    ("bitplan.report", "page.js"),
    ("bitplan.kernels", "FORMAT.md"),
    ("bitplan.kernels", "_runtime.pyi"),
    ("bitplan.encodings", "_trellis.pyi"),
]


def is_editable() -> bool:
    origin = metadata.distribution("bitplan").read_text("direct_url.json")
    return bool(origin and json.loads(origin).get("dir_info", {}).get("editable"))


@pytest.mark.parametrize(("package", "file"), NEEDED)
def test_a_file_that_the_package_needs_is_there(package: str, file: str) -> None:
    found = resources.files(package).joinpath(file)
    assert found.is_file()
    if file != "py.typed":
        assert found.read_bytes()


def test_nothing_of_the_c_plus_plus_sources_is_installed() -> None:
    if is_editable():
        pytest.skip("an editable installation is the source tree")
    files = [str(file) for file in metadata.files("bitplan") or ()]
    assert any(file.endswith(".so") for file in files)
    assert not [file for file in files if file.endswith((".cpp", ".h", ".inc", ".cmake")) or "/cpp/" in file]


def test_every_module_is_seen_by_the_type_checker() -> None:
    root = Path(__file__).parents[2]
    linked = {path.name for path in (root / ".typing" / "bitplan").iterdir()}
    modules = {
        path.name for path in (root / "bitplan").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert modules <= linked


def test_the_command_is_installed() -> None:
    (command,) = metadata.entry_points(group="console_scripts", name="optimize")
    assert command.value == "bitplan.cli:main"
