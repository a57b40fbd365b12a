"""A small network with what networks of torchvision are made of, and the files that other tools write of it."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn


class Gate(nn.Module):
    """Squeeze and excitation."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce, self.widen = nn.Conv2d(channels, 4, 1), nn.Conv2d(4, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.widen(torch.relu(self.reduce(x.mean((2, 3), keepdim=True))))
        return x * torch.sigmoid(gate)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(16, 16, 3, 2, 1, groups=16, bias=False)
        self.bn = nn.BatchNorm2d(16)
        self.gate = Gate(16)
        self.branches = nn.ModuleList([nn.Conv2d(16, 8, 1), nn.Conv2d(16, 8, 3, padding=1)])
        self.join = nn.Conv2d(16, 16, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.silu(self.bn(self.depthwise(x)))
        gated = self.gate(x)
        y = torch.cat([branch(gated) for branch in self.branches], 1)
        n, c, h, w = y.shape
        y = y.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)  # a channel shuffle
        return nn.functional.hardswish(self.join(y) + x)


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU6(), nn.MaxPool2d(3, 2, 1))
        self.block = Block()
        self.pool = nn.AvgPool2d(2, ceil_mode=True)
        self.head = nn.Sequential(nn.Flatten(), nn.Dropout(0.2), nn.Linear(64, 5))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.pool(self.block(self.stem(x))))


SHAPE = (3, 16, 16)


@pytest.fixture(scope="session")
def network() -> nn.Module:
    return small_network()


def small_network() -> nn.Module:
    torch.manual_seed(0)
    module = Small()
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.2)
            layer.running_var.uniform_(0.5, 2)
            nn.init.normal_(layer.weight, 1, 0.2)
    return module.eval().requires_grad_(False)


FREE = ({0: torch.export.Dim.DYNAMIC},)


def to_archive(module: nn.Module, path: Path, batch: int | None = None) -> Path:
    """`batch`: None for a free one."""
    x = torch.randn(batch or 2, *SHAPE)
    torch.export.save(torch.export.export(module, (x,), dynamic_shapes=None if batch else FREE), path)
    return path


def to_onnx(
    module: nn.Module, path: Path, batch: int | None = None, opset: int = 17, shape: tuple[int, ...] = SHAPE
) -> Path:
    """By torch's older exporter, which is quick; of its newer one, `exported.onnx` is a recorded file (record.py)."""
    pytest.importorskip("onnx")
    x = torch.randn(batch or 2, *shape)
    free = {} if batch else {"dynamic_axes": {"x": {0: "N"}}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, (x,), path, dynamo=False, opset_version=opset, input_names=["x"], **free)
    return path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder of the command, empty."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
