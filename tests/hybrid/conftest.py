"""A small detector that cannot be captured: a backbone, a head shared by two scales, control flow, outputs in a dict."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

MODEL = """
import torch
from torch import nn


class Detector(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.ReLU())
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.down = nn.Conv2d(16, 24, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(24)
        self.lateral = nn.Conv2d(16, 24, 1, padding="same")
        self.head = nn.Conv2d(24, 8, 3, padding=1)
        self.reflect = nn.Conv2d(24, 24, 3, padding=1, padding_mode="reflect")
        self.token = nn.Linear(24, 12)
        self.classify = nn.Linear(12, 5)
        self.unused = nn.Linear(4, 4)

    def forward(self, x):
        fine = torch.relu(self.depthwise(self.stem(x)))
        coarse = torch.relu(self.norm(self.down(fine)))
        fine = self.lateral(fine)
        boxes = []
        for level in (fine, coarse):
            y = self.head(level)
            while float(y.abs().max()) > 1e6:  # control flow on values: no graph captures this
                y = y / 2
            boxes.append(y.flatten(1))
        tokens = coarse + 0.1 * self.reflect(coarse)
        rows = torch.relu(self.token(tokens.flatten(2).transpose(1, 2)))
        return {"boxes": boxes, "scores": self.classify(rows.mean(1)), "anchors": torch.arange(7.0)}


def build():
    torch.manual_seed(3)
    module = Detector()
    module.norm.running_mean.normal_(0, 0.1)
    return module, {"mean": [127.5] * 3, "std": [64.0] * 3, "input_shape": (3, 16, 16)}


class Classifier(Detector):
    def forward(self, x):
        return super().forward(x)["scores"]


def build_classifier():
    torch.manual_seed(3)
    return Classifier(), {"mean": [127.5] * 3, "std": [64.0] * 3, "input_shape": (3, 16, 16)}


class Ragged(Detector):
    def forward(self, x):
        return super().forward(x)["scores"][:, : 1 + int(x[0, 0, 0, 0] > 0)]


def build_ragged():
    torch.manual_seed(3)
    return Ragged(), {"mean": [127.5] * 3, "std": [64.0] * 3, "input_shape": (3, 16, 16)}


class NoLayers(nn.Module):
    def forward(self, x):
        return x.mean((2, 3))


def build_no_layers():
    return NoLayers()
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path) -> Path:
    """The current folder: the model's module and a data set."""
    (tmp_path / "detector_network.py").write_text(MODEL)
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (40, 3, 16, 16), dtype=np.uint8)
    y = rng.integers(0, 5, 40)
    np.savez(tmp_path / "data.npz", calibration_x=x[:16], calibration_y=y[:16], test_x=x[16:], test_y=y[16:])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BITPLAN_CACHE", str(cache))
    monkeypatch.delitem(sys.modules, "detector_network", raising=False)
    return tmp_path
