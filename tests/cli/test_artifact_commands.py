"""`optimize run` and `bench` on artifacts, without a network or torch."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest

from bitplan.network import RELU, Conv2d, Input, Linear, Mean, Network, Node
from bitplan.profiles.stand_in import stand_in_artifact
from bitplan.variant import Variant

Command = Callable[..., Any]
GOLDEN = Path(__file__).parent.parent / "golden" / "policy-v1.json"


@pytest.fixture
def artifact(folder: Path) -> str:
    nodes = (
        Node("x", Input(), (), (3, 8, 8)),
        Node("conv", Conv2d((3, 3), activation=RELU), ("x",), (8, 6, 6)),
        Node("mean", Mean(), ("conv",), (8,)),
        Node("head", Linear(), ("mean",), (4,)),
    )
    path = folder / "net.bitplan"
    path.write_bytes(stand_in_artifact(Network(nodes, ("head",)), dict.fromkeys(("conv", "head"), Variant("int8"))))
    return path.name


@pytest.mark.parametrize("name", ["res", "res.npz", "new folder/res.data"])
def test_outputs_go_to_exactly_the_file_named(command: Command, artifact: str, folder: Path, name: str) -> None:
    before = set(folder.iterdir())
    called = command("run", artifact, "--data", "data.npz", "-o", name, "--json")
    assert called.code == 0, called.err
    assert called.json["output"] == name
    assert np.load(folder / name)["outputs"].shape == (64, 4)
    assert {path.name for path in set(folder.iterdir()) - before} == {Path(name).parts[0]}


def test_a_full_disk_leaves_the_old_outputs(
    command: Command, artifact: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> NoReturn:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (folder / "res.npz").write_bytes(b"old")
    before = set(folder.iterdir())
    monkeypatch.setattr(os, "fsync", full)
    for name in ("res.npz", "new.npz"):
        called = command("run", artifact, "-o", name)
        assert called.code == 1
        assert "No space left" in called.err
    assert (folder / "res.npz").read_bytes() == b"old"
    assert set(folder.iterdir()) == before


@pytest.mark.parametrize("output", [os.devnull, "."])
def test_an_output_that_is_no_file_is_left_alone(command: Command, artifact: str, output: str) -> None:
    called = command("run", artifact, "-o", output)
    assert called.code == 2
    assert "not a regular file" in called.err
    assert not Path(output).is_file()


@pytest.mark.parametrize("name", ["run", "bench"])
def test_a_policy_is_told_from_an_artifact(command: Command, folder: Path, name: str) -> None:
    (folder / "my policy.json").write_bytes(GOLDEN.read_bytes())
    called = command(name, "my policy.json")
    assert called.code == 2
    assert "is a policy, not an artifact" in called.err
    assert "optimize realise 'my policy.json'" in called.err


def test_another_json_file_is_a_damaged_artifact(command: Command, folder: Path) -> None:
    for content in ("{}", "[1]", "{"):
        (folder / "result.json").write_text(content)
        called = command("run", "result.json")
        assert called.code == 1
        assert "result.json" in called.err
        assert "policy" not in called.err
