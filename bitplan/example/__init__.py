"""The embedded example: a small residual network trained on Fashion-MNIST, with calibration and test images."""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING

from bitplan.data import Dataset
from bitplan.data.arrays import load_npz
from bitplan.data.split import Split
from bitplan.network import Preprocessing, Shape
from bitplan.user_code import require_package

if TYPE_CHECKING:
    from torch import nn

PREPROCESSING = Preprocessing(mean=(72.94,), std=(90.02,))
"""Of the training images, on the 0..255 scale."""
INPUT_SHAPE: Shape = (1, 28, 28)


def example_module() -> nn.Module:
    """The trained network in evaluation mode: [N, 1, 28, 28] after `PREPROCESSING` to logits [N, 10]."""
    require_package("torch", "the embedded example")
    from bitplan.example.network import ExampleNetwork
    from bitplan.weights_file import load_weights

    module = ExampleNetwork()
    with resources.as_file(resources.files("bitplan.example") / "weights.safetensors") as path:
        load_weights(module, path)
    return module.eval().requires_grad_(False)


def example_data() -> Dataset:
    """512 calibration images (of the training set) and 2,000 test images, uint8 [N, 1, 28, 28], with labels."""
    with resources.as_file(resources.files("bitplan.example") / "images.npz") as path:
        found = load_npz(path, Split(), INPUT_SHAPE)
    return Dataset(found.calibration_x, found.calibration_y, found.test_x, found.test_y, "embedded example")
