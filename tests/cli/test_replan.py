"""`optimize replan` through the command, on a tiny network."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitplan.kernels import Runtime
from bitplan.policies.policy_file import policy_hash, read_policy

Command = Callable[..., Any]


@pytest.fixture
def out(tiny: Command, folder: Path) -> Path:
    """What a run with fine-tuning leaves."""
    done = tiny(
        *("--budget", "1500B", "--link-policies", "0", "--finetune", "1epochs", "-o", "out"),
        *("--finetune-option", "batch=8", "--finetune-option", "learning_rate=0.0001"),
        menu="int8,int4,int2,binary",
    )
    assert done.code == 0, done.err
    return folder / "out"


def test_more_bytes_are_given_to_layers_and_the_stages_are_told(out: Path, command: Command) -> None:
    done = command("replan", "out", "--budget", "3kB", "--json")
    assert done.code == 0, done.err
    told = done.json["replanning"]
    assert list(told["stages"]) == ["planned", "recovered", "finetuned", "replanned"]
    assert told["kept"] is False
    assert told["held_back"]["after"] < told["held_back"]["before"]
    assert told["stages"]["finetuned"]["file_bytes"] <= 1500 < told["stages"]["replanned"]["file_bytes"] <= 3000
    assert sum(row["bytes_after"] - row["bytes_before"] for row in told["moved"]) == (
        told["stages"]["replanned"]["file_bytes"] - told["stages"]["finetuned"]["file_bytes"]
    )
    policy = read_policy(out / "replanned" / "policy.json")
    assert Runtime.load(out / "replanned" / "network.bitplan").policy_hash == policy_hash(policy)
    assert json.loads((out / "replanned" / "result.json").read_text()) == done.json
    assert "--finetune 10epochs" in done.err
    assert "epoch 1" not in done.err
