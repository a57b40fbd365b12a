"""`--finetune` through the command, on a tiny network."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from bitplan.kernels import Runtime

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
