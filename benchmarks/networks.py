"""The trained networks and images that the benchmarks run on.

`BITPLAN_TEST_DATA` names a folder with `refnets.py`, `models/`, `cifar10/` and `imagenet1000/` (see CONTRIBUTING.md); the
embedded example is always there. The functions also serve the command line:

    optimize --model benchmarks.networks:resnet20 --data benchmarks.networks:cifar10 --budget 130kB
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitplan.capture import capture
from bitplan.encodings import EncodedLayer
from bitplan.example import PREPROCESSING, example_data, example_module
from bitplan.formats import Ranges
from bitplan.network import Network, Preprocessing
from bitplan.profiles.metrics import divergence, log_probabilities
from bitplan.simulate import Simulator

CALIBRATION = 512
HALF = 250
"""Images of the two halves of the 500 ImageNet images."""


@dataclass(frozen=True)
class Case:
    """A captured network with its calibration and test images (raw uint8) and labels."""

    name: str
    network: Network
    weights: dict[str, NDArray[np.float32]]
    calibration: NDArray[np.uint8]
    test: NDArray[np.uint8]
    labels: NDArray[np.int64]
    batch: int
    """A sensible number of images per torch call."""

    @property
    def loss_images(self) -> NDArray[np.uint8]:
        """The calibration images that losses are measured on: 128 of the large ones."""
        return self.calibration[: 128 if self.test.shape[-1] > 64 else None]


def data_folder() -> Path | None:
    folder = os.environ.get("BITPLAN_TEST_DATA")
    return Path(folder) if folder else None


@cache
def refnets() -> ModuleType:
    folder = data_folder()
    if folder is None:
        raise SystemExit("set BITPLAN_TEST_DATA to the folder of real networks and images")
    spec = importlib.util.spec_from_file_location("refnets", folder / "refnets.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def images(name: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    x, y = refnets().load_images(str(Path(str(data_folder())) / name))
    return x, y


def cifar10() -> dict[str, Any]:
    """512 training images to calibrate on, the 6,000 test images."""
    x, y = images("cifar10/train_0.npz")
    test_x, test_y = images("cifar10/test.npz")
    return {"calibration_x": x[:CALIBRATION], "calibration_y": y[:CALIBRATION], "test_x": test_x, "test_y": test_y}


def imagenet(half: int = 0) -> dict[str, Any]:
    """Every second image to calibrate on, the others to measure on; `half` says which."""
    x, y = images("imagenet1000/imagenet500_224.npz")
    return {
        "calibration_x": x[half::2],
        "calibration_y": y[half::2],
        "test_x": x[1 - half :: 2],
        "test_y": y[1 - half :: 2],
    }


def imagenet_other_half() -> dict[str, Any]:
    return imagenet(1)


def _model(name: str) -> tuple[Any, dict[str, Any]]:
    module, info = refnets().build(str(data_folder()), name)
    return module, {"mean": info["mean"], "std": info["std"]}


def resnet20() -> tuple[Any, dict[str, Any]]:
    return _model("resnet20")


def resnet44() -> tuple[Any, dict[str, Any]]:
    return _model("resnet44")


def vgg6() -> tuple[Any, dict[str, Any]]:
    return _model("vgg6")


def efficientnet_lite0() -> tuple[Any, dict[str, Any]]:
    return _model("efficientnet_lite0")


def _case(name: str, build: Callable[[], tuple[Any, dict[str, Any]]], data: dict[str, Any], batch: int) -> Case:
    import torch

    module, info = build()
    shape = data["test_x"].shape[1:]
    network, weights = capture(
        module, torch.zeros(2, *shape), preprocessing=Preprocessing(tuple(info["mean"]), tuple(info["std"]))
    )
    return Case(name, network, weights, data["calibration_x"], data["test_x"], data["test_y"], batch)


def simulated(
    simulator: Simulator,
    images: NDArray[np.uint8],
    batch: int,
    layers: Mapping[str, EncodedLayer] | None = None,
    ranges: Ranges | None = None,
) -> NDArray[np.float32]:
    """The first output for all images, in torch; float32 without `layers`."""
    first = simulator.network.outputs[0]
    parts = [simulator.outputs(images[i : i + batch], layers, ranges)[first] for i in range(0, len(images), batch)]
    return np.concatenate([part.numpy() for part in parts])


def figures_of(
    reference: NDArray[np.float32], outputs: NDArray[np.float32], labels: NDArray[np.int64]
) -> dict[str, float]:
    """How far outputs [N, classes] are from those of full precision, and how often both are right."""
    chosen, full = outputs.argmax(1), reference.argmax(1)
    return {
        "kl": float(divergence(log_probabilities(reference), log_probabilities(outputs)).mean()),
        "accuracy": float((chosen == labels).mean()),
        "agreement": float((chosen == full).mean()),
        "full_precision": float((full == labels).mean()),
    }


def example() -> Case:
    import torch

    data = example_data()
    network, weights = capture(example_module(), torch.zeros(2, 1, 28, 28), preprocessing=PREPROCESSING)
    return Case("example", network, weights, data.calibration_x, data.test_x, data.test_y, 128)


def cases(names: list[str] | None = None) -> list[Case]:
    """The example and, where the data is there, ResNet-20, ResNet-44, VGG-6 and EfficientNet-Lite0."""
    builders: dict[str, Callable[[], Case]] = {"example": example}
    if data_folder():
        builders |= {
            "resnet20": lambda: _case("resnet20", resnet20, cifar10(), 128),
            "resnet44": lambda: _case("resnet44", resnet44, cifar10(), 128),
            "vgg6": lambda: _case("vgg6", vgg6, cifar10(), 128),
            "efficientnet_lite0": lambda: _case("efficientnet_lite0", efficientnet_lite0, imagenet(), 25),
        }
    unknown = set(names or ()) - set(builders)
    if unknown:
        raise SystemExit(f"unknown networks {sorted(unknown)}; there are {sorted(builders)}")
    return [build() for name, build in builders.items() if not names or name in names]
