"""`--finetune` through the command, on a tiny network."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from bitplan.finetuning import outcome_of
from bitplan.kernels import Runtime
from bitplan.policies.realise import Realisation
from bitplan.policies.realise.finetune import Epoch, Finetuned, Settings

Command = Callable[..., Any]


def test_a_policy_is_trained_and_measured(tiny: Command, command: Command, folder: Path) -> None:
    planned = tiny("--budget", "2kB", "--dry-run", "--link-policies", "0", "-o", "out")
    assert planned.code == 0, planned.err
    data = np.load(folder / "data.npz")
    x = np.concatenate([data["calibration_x"], data["test_x"][:20]])
    np.savez(folder / "train.npz", x=x)
    options = ("--finetune", "2epochs", "--train-data", "train.npz", "--finetune-option", "batch=8")
    subject = ("--model", "tiny_network:build", "--data", "data.npz")
    called = command("realise", "out/policy.json", *subject, *options, "-o", "out", "--json")
    assert called.code in (0, 4), called.err
    stages = called.json["finetuning"]
    assert set(stages) == {"planned", "recovered", "finetuned", "training"}
    assert stages["training"]["images"] == 32
    assert len(stages["training"]["history"]) == 3
    assert stages["finetuned"]["file_bytes"] == stages["planned"]["file_bytes"] == called.json["file_bytes"]
    assert "20 training images are test images too" in called.err
    assert "epoch 2/2" in called.err
    assert [gain["step"] for gain in called.json["recovery"]][:2] == ["rounded", "correct"]
    assert Runtime.load(folder / "out" / "network.bitplan")
    assert json.loads((folder / "out" / "result.json").read_text()) == called.json
    resolved = yaml.safe_load((folder / "out" / "optimize.yaml").read_text())
    assert resolved["finetune"] == 2
    assert resolved["finetune_options"] == ["batch=8"]


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (("--finetune", "long"), "30epochs"),
        (("--finetune-time", "60min"), "without finetune"),
        (("--finetune", "2epochs", "--finetune-time", "soon"), "finetune_time"),
        (("--finetune", "2epochs", "--finetune-option", "speed=3"), "unknown fine-tuning option 'speed'"),
        (("--finetune", "2epochs", "--loss", "tiny_network:none"), "no function 'none'"),
        (("--finetune", "2epochs", "--hybrid"), "whole captured networks"),
    ],
)
def test_bad_options_are_found_before_anything_long(tiny: Command, options: tuple[str, ...], match: str) -> None:
    called = tiny("--budget", "3kB", *options)
    assert called.code == 2
    assert match in called.err


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (("--train-data", "none.npz"), "none.npz"),
        (("--train-data", "bare.npz", "--finetune-option", "task=1"), "have none"),
    ],
)
def test_bad_training_images_are_found_before_anything_long(
    tiny: Command, folder: Path, options: tuple[str, ...], match: str
) -> None:
    np.savez(folder / "bare.npz", x=np.load(folder / "data.npz")["calibration_x"])
    called = tiny("--budget", "3kB", "--finetune", "2epochs", *options)
    assert called.code == 1
    assert match in called.err
    assert "measuring" not in called.err


def test_an_edited_loss_is_trained_with_anew_and_the_old_checkpoint_kept(
    tiny: Command, command: Command, folder: Path
) -> None:
    assert tiny("--budget", "2kB", "--dry-run", "--link-policies", "0", "-o", "out").code == 0
    own = folder / "own_loss.py"
    own.write_text(
        "def loss(outputs, full, labels):\n    return sum((outputs[n] - full[n]).square().mean() for n in full)\n"
    )
    subject = (
        "--model",
        "tiny_network:build",
        "--data",
        "data.npz",
        "--loss",
        "own_loss:loss",
        "--finetune",
        "1epochs",
    )
    aside = folder / "out" / "finetune-1.safetensors"
    for edited in (False, False, True):
        if edited:
            own.write_text(own.read_text() + "# edited\n")
        called = command("realise", "out/policy.json", *subject, "--finetune-option", "batch=8", "-o", "out")
        assert called.code in (0, 4), called.err
        assert aside.exists() == edited
    assert "it is kept as" in called.err
    assert "finetune-1.safetensors" in called.err


def history(*held_back: float) -> list[Epoch]:
    return [Epoch(None if number == 0 else 1.0, loss) for number, loss in enumerate(held_back)]


@pytest.mark.parametrize(
    ("losses", "best", "settings", "words"),
    [
        ((3, 2, 1), 2, Settings(epochs=2), "the best epoch was 2 of 2"),
        (
            (3, 2, 4, 4),
            1,
            Settings(epochs=9, patience=2),
            "1 of 3; no better one in 2 more, so training ended (patience)",
        ),
        ((3, 2), 1, Settings(epochs=9), "the best epoch was 1 of 1; the time was over before epoch 2 of 9"),
        ((3, 4, 5), 0, Settings(epochs=2), "training did not better the start in 2 epochs, so the start is kept"),
        ((3,), 0, Settings(epochs=2), "nothing was trained"),
    ],
)
def test_the_end_of_training_says_why(losses: tuple[float, ...], best: int, settings: Settings, words: str) -> None:
    known = history(*losses)
    assert words in outcome_of(Finetuned(Realisation({}, {}), {}, known, best, known[best]), settings)


def test_options_that_no_layer_uses_are_told(tiny: Command, command: Command, folder: Path) -> None:
    assert (
        tiny("--budget", "2kB", "--dry-run", "--link-policies", "0", "--encodings", "int2,int8", "-o", "out").code == 0
    )
    options = ("--finetune", "1epochs", "--finetune-option", "batch=8", "--finetune-option", "ternary=ptq")
    called = command(
        "realise", "out/policy.json", "--model", "tiny_network:build", "--data", "data.npz", *options, "-o", "out"
    )
    assert called.code in (0, 4), called.err
    assert "the fine-tuning option ternary changes nothing: no layer of the policy is ternary" in called.err


def test_epochs_of_a_step_that_recovery_lacks_are_told(tiny: Command) -> None:
    called = tiny("--budget", "3kB", "--tune-epochs", "4", "--dry-run", "--link-policies", "0")
    assert "--tune-epochs changes nothing: recovery has no step tune" in called.err


def test_a_drop_that_is_allowed_holds_before_training_and_that_is_told(tiny: Command) -> None:
    options = ("--finetune", "1epochs", "--finetune-option", "batch=8", "--compare", "none", "--link-policies", "0")
    called = tiny("--max-drop", "50%", *options)
    assert called.code in (0, 4), called.err
    assert "--max-drop chooses the plan by what recovery alone loses" in called.err
    called = tiny("--max-drop", "50%", "--budget", "3kB", "--target-latency", "1s", *options)
    assert "--max-drop chooses" not in called.err
