"""A tiny network and a tiny data set in a folder of their own."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

Command = Callable[..., Any]

MODEL = """
import torch
from torch import nn


class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.conv2 = nn.Conv2d(16, 16, 3, padding=1)
        self.fc = nn.Linear(16, 4)

    def forward(self, x):
        x = torch.relu(self.bn1(self.conv1(x)))
        x = torch.relu(self.conv2(x) + x)
        return self.fc(x.mean((2, 3)))


def build():
    torch.manual_seed(1)
    return Tiny(), {"mean": [127.5] * 3, "std": [64.0] * 3, "input_shape": (3, 8, 8)}


def build_nan():
    module, info = build()
    module.conv2.weight.data[0, 0, 0, 0] = float("nan")
    return module, info


class Two(Tiny):
    def forward(self, x):
        scores = super().forward(x)
        return scores, torch.sigmoid(scores)


def build_two():
    torch.manual_seed(1)
    return Two(), {"mean": [127.5] * 3, "std": [64.0] * 3, "input_shape": (3, 8, 8)}


class Odd(nn.Module):
    def forward(self, x):
        return torch.fft.fft2(x).real.mean((2, 3))


def build_unsupported():
    return Odd()


def worst(outputs, labels):
    return 0.25


def not_finite(outputs, labels):
    return float("nan")
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path) -> Path:
    """The current folder: a model module and a data set."""
    (tmp_path / "tiny_network.py").write_text(MODEL)
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (96, 3, 8, 8), dtype=np.uint8)
    y = rng.integers(0, 4, 96)
    np.savez(tmp_path / "data.npz", calibration_x=x[:32], calibration_y=y[:32], test_x=x[32:], test_y=y[32:])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BITPLAN_CACHE", str(cache))
    monkeypatch.delitem(sys.modules, "tiny_network", raising=False)
    return tmp_path


@pytest.fixture
def tiny(command: Command) -> Command:
    """Calls `optimize` on the tiny network with a small menu."""

    def call(*arguments: str, menu: str = "float32,int8,int4,binary") -> Any:
        subject = ["--model", "tiny_network:build", "--data", "data.npz", "--encodings", menu]
        return command(*subject, "--compare", "none", "--json", *arguments)

    return call
