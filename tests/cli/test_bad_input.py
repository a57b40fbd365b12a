"""What a user can get wrong: every mistake gets one line that says what to do, and the right exit code."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest

Command = Callable[..., Any]
SUBJECT = ["--model", "tiny_network:build", "--data", "data.npz", "--encodings", "int8,binary", "--compare", "none"]


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (["--target-latency", "0ms"], 2, "0ms"),
        (["--target-latency", "20"], 2, "unit"),
        (["--budget", "many"], 2, "many"),
        (["--budget", "1"], 3, "bytes"),
        (["--target-latency", "1us"], 3, "ms"),
        (["--nonsense"], 2, "nonsense"),
        (["--pin", "conv9=int8"], 2, "conv9"),
        (["--pin", "conv1=int7"], 2, "int7"),
        (["--exclude", "nothing*"], 2, "nothing"),
        (["--recovery", "reconstuct"], 2, "did you mean 'reconstruct'"),
        (["--encodings", "int9"], 2, "int9"),
        (["--objective", "speed"], 2, "speed"),
        (["--config", "none.yaml"], 2, "none.yaml"),
        (["--weights", "none.safetensors"], 1, "none.safetensors"),
        (["--mean", "1,2", "--std", "1"], 2, "mean"),
        (["--max-drop", "1%", "--dry-run"], 2, "--max-drop"),
        (["--compare", "4bit"], 2, "4bit"),
        (["--metric", "tiny_network:not_finite", "--budget", "3kB"], 2, "nan"),
    ],
)
def test_wrong_options(command: Command, arguments: list[str], code: int, complaint: str) -> None:
    called = command(*SUBJECT, *arguments)
    assert called.code == code, called.err
    assert complaint in called.err
    assert "Traceback" not in called.err


@pytest.mark.parametrize(
    ("model", "complaint"),
    [
        ("tiny_network:build_nan", "conv2"),
        ("tiny_network:build_unsupported", "fft"),
        ("tiny_network:missing", "missing"),
        ("no_such_module:build", "no_such_module"),
    ],
)
def test_wrong_models(command: Command, model: str, complaint: str) -> None:
    called = command("--model", model, "--data", "data.npz", "--budget", "3kB")
    assert called.code in (1, 2), called.err
    assert complaint in called.err
    assert "Traceback" not in called.err


@pytest.mark.parametrize(
    ("arrays", "complaint"),
    [
        ({"x": np.zeros((8, 1, 8, 8), np.uint8)}, "channels"),
        ({"x": np.zeros((8, 8, 8, 3), np.uint8)}, "channels last"),
        ({"x": np.zeros((8, 3, 8, 8))}, "float64"),
        ({"x": np.full((8, 3, 8, 8), np.nan, np.float32)}, "finite"),
        ({"x": np.zeros((8, 3, 8, 8), np.uint8), "y": np.zeros(3, int)}, "labels"),
        ({"y": np.zeros(3, int)}, "x"),
    ],
)
def test_wrong_data(command: Command, folder: Path, arrays: dict[str, np.ndarray], complaint: str) -> None:
    np.savez(folder / "wrong.npz", **arrays)
    called = command("--model", "tiny_network:build", "--data", "wrong.npz", "--budget", "3kB")
    assert called.code == 1, called.err
    assert complaint in called.err


def test_infeasible_targets_say_what_can_be_reached(command: Command) -> None:
    called = command(*SUBJECT, "--budget", "100", "--target-latency", "1us", "--json")
    assert called.code == 3
    assert "latency" in called.err
    assert "100" in called.err
    assert called.json["status"] == "infeasible"
    assert called.json["message"] == json.loads(called.err.splitlines()[-1])["text"]


def test_labels_must_be_classes_of_the_network(command: Command, folder: Path) -> None:
    np.savez(folder / "labels.npz", x=np.zeros((16, 3, 8, 8), np.uint8), y=np.arange(16))
    called = command("--model", "tiny_network:build", "--data", "labels.npz", "--budget", "3kB")
    assert called.code == 1
    assert "0..3" in called.err


def test_options_that_would_do_nothing_are_refused(command: Command) -> None:
    assert "--model" in command("--weights", "some.safetensors").err
    called = command("plan", "anywhere", "--max-drop", "1%")
    assert called.code == 2
    assert "--max-loss" in called.err


def test_a_drop_needs_a_classifier_or_a_metric(command: Command) -> None:
    called = command("--model", "tiny_network:build_two", "--data", "data.npz", "--max-drop", "1%")
    assert called.code == 2
    assert "--metric" in called.err


def test_a_loss_profile_of_another_network_is_refused_and_kept(command: Command, folder: Path) -> None:
    command("profile", *SUBJECT, "-o", "stored")
    before = (folder / "stored" / "loss.arrow").read_bytes()
    called = command(
        "--model", "tiny_network:build_two", "--data", "data.npz", "--budget", "3kB",
        "--loss-profile", "stored/loss.arrow",
    )  # fmt: skip
    assert called.code == 2
    assert "another network" in called.err
    assert (folder / "stored" / "loss.arrow").read_bytes() == before


def test_an_output_folder_that_cannot_be_written_is_found_before_the_work(command: Command, folder: Path) -> None:
    (folder / "file").write_text("")
    called = command(*SUBJECT, "--budget", "3kB", "-o", "file/out")
    assert called.code == 1
    assert "file" in called.err
    assert "loading" not in called.err


def test_a_full_disk_leaves_the_old_file(command: Command, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command(*SUBJECT, "--budget", "3kB", "-o", "out")
    before = (folder / "out" / "network.bitplan").read_bytes()

    def full(_: int) -> NoReturn:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    called = command(*SUBJECT, "--budget", "2kB", "-o", "out")
    assert called.code == 1
    assert "No space left" in called.err
    assert (folder / "out" / "network.bitplan").read_bytes() == before
    assert [p.name for p in (folder / "out").iterdir() if p.name.startswith(".")] == []


@pytest.mark.parametrize(
    "stage",
    [
        "bitplan.stages.load_trained",
        "bitplan.profiling.measure_latency",
        "bitplan.profiles.measure_loss.measure",
        "bitplan.workflow.plan",
        "bitplan.policies.realise.recover",
        "bitplan.measured.measure_policy",
    ],
)
def test_an_interrupt_in_any_stage_ends_cleanly(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, stage: str
) -> None:
    def interrupt(*_: object, **__: object) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setenv("BITPLAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(stage, interrupt)
    called = command(*SUBJECT, "--budget", "3kB")
    assert called.code == 130
    assert "interrupted" in called.err
    assert "Traceback" not in called.err


def test_an_interrupted_comparison_leaves_the_plan(
    command: Command, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr("bitplan.workflow.compare", interrupt)
    assert command(*SUBJECT, "--budget", "3kB", "-o", "out").code == 130
    assert json.loads((folder / "out" / "result.json").read_text())["status"] == "met"
    assert (folder / "out" / "network.bitplan").exists()


def test_a_damaged_artifact_is_refused(command: Command, folder: Path) -> None:
    artifact = folder / "out" / "network.bitplan"
    command(*SUBJECT, "--budget", "3kB", "-o", "out")
    data = bytearray(artifact.read_bytes())
    data[len(data) // 2] ^= 1
    artifact.write_bytes(data)
    for arguments in (["run", str(artifact)], ["bench", str(artifact)]):
        called = command(*arguments)
        assert called.code == 1
        assert "network.bitplan" in called.err
    assert command("run", "none.bitplan").code == 1


def test_damaged_profiles_are_refused_by_name(command: Command, folder: Path) -> None:
    command("profile", *SUBJECT, "-o", "stored")
    for name in ("device.arrow", "loss.arrow", "network.json"):
        path = folder / "stored" / name
        good = path.read_bytes()
        path.write_bytes(good[: len(good) // 2])
        called = command("plan", "stored", "--encodings", "int8,binary", "--budget", "3kB")
        assert called.code == 1, called.err
        assert name in called.err
        path.write_bytes(good)
    assert command("plan", "stored", "--encodings", "int8,binary", "--budget", "3kB").code == 0


def test_a_policy_edited_wrongly_names_layer_and_rule(command: Command, folder: Path) -> None:
    command(*SUBJECT, "--budget", "3kB", "--dry-run", "-o", "out")
    path = folder / "out" / "policy.json"
    content = json.loads(path.read_text())
    for change, complaint in (
        ({"name": "conv11"}, "conv11"),
        ({"encoding": "int9"}, "int9"),
        ({"encoding": "apb", "parameters": {"kept": 0.9}}, "kept"),
    ):
        edited = json.loads(json.dumps(content))
        edited["layers"][0].update(change)
        path.write_text(json.dumps(edited))
        called = command("realise", str(path), "--model", "tiny_network:build", "--data", "data.npz", "-o", "edited")
        assert called.code in (1, 2), called.err
        assert complaint in called.err
        assert "Traceback" not in called.err
