"""What tests of several folders share: one small network, the way to the real data, and the command called in this process."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from numpy.typing import NDArray

from bitplan.network import (
    RELU,
    RELU6,
    Conv2d,
    Input,
    Linear,
    MaxPool,
    Mean,
    Network,
    Node,
    Preprocessing,
    Slice,
)

settings.register_profile("bitplan", deadline=None)  # tests state behaviour, never speed
settings.load_profile("bitplan")


@dataclass(frozen=True)
class Example:
    """A network, its weights, and raw uint8 images [N, C, H, W] for it."""

    network: Network
    weights: dict[str, NDArray[np.float32]]
    images: NDArray[np.uint8]


@pytest.fixture(scope="session")
def small() -> Example:
    """All that matters for recovery in few pixels: a stem, a depthwise layer, a residual, a strided slice and a max
    pool that only one layer reads (so that they compute in 8 bits with it), a linear classifier."""
    nodes = (
        Node("x", Input(), (), (3, 12, 12)),
        Node("stem", Conv2d((3, 3), (1, 1), (1, 1, 1, 1), activation=RELU), ("x",), (8, 12, 12)),
        Node("depthwise", Conv2d((3, 3), (1, 1), (1, 1, 1, 1), groups=8, activation=RELU6), ("stem",), (8, 12, 12)),
        Node("project", Conv2d((1, 1)), ("depthwise", "stem"), (8, 12, 12)),
        Node("slice", Slice(((0, 8, 1), (0, 12, 2), (0, 12, 2))), ("project",), (8, 6, 6)),
        Node("pool", MaxPool((2, 2), (2, 2)), ("project",), (8, 6, 6)),
        Node("expand", Conv2d((3, 3), (1, 1), (1, 1, 1, 1), activation=RELU), ("slice",), (8, 6, 6)),
        Node("join", Conv2d((3, 3), (1, 1), (1, 1, 1, 1), activation=RELU), ("expand", "pool"), (8, 6, 6)),
        Node("mean", Mean(), ("join",), (8,)),
        Node("classifier", Linear(), ("mean",), (5,)),
    )
    network = Network(nodes, ("classifier",), Preprocessing((120.0, 110.0, 100.0), (60.0, 50.0, 70.0)))
    random = np.random.default_rng(5)
    weights: dict[str, NDArray[np.float32]] = {}
    for node in network.layers:
        shape = network.weight_shape(node)
        size: tuple[int, ...] = (shape.out_channels, shape.in_channels // shape.groups, *shape.kernel)
        if isinstance(node.op, Linear):
            size = size[:2]
        weights[f"{node.name}.weight"] = random.normal(0, 1.4 / shape.reduction**0.5, size).astype(np.float32)
        weights[f"{node.name}.bias"] = random.normal(0, 0.3, shape.out_channels).astype(np.float32)
    return Example(network, weights, random.integers(0, 256, (40, 3, 12, 12), np.uint8))


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real networks and images; the test is skipped where there is none."""
    folder = os.environ.get("BITPLAN_TEST_DATA")
    if not folder or not (Path(folder) / "refnets.py").exists():
        pytest.skip("real data not found: set BITPLAN_TEST_DATA to its folder")
    return Path(folder)


@dataclass
class Called:
    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        return dict(json.loads(self.out.strip().splitlines()[-1]))


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for all jobs of this process: kernels and calls are timed once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def command(folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Called]:
    """Calls `optimize` with these arguments in `folder`, which the folder of the tests defines."""
    from bitplan.cli import main

    def call(*arguments: str) -> Called:
        monkeypatch.setattr(sys, "argv", ["optimize", *arguments])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capfd.readouterr()
        return Called(int(ended.value.code or 0), out, err)

    return call
