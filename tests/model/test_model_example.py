"""The embedded example is whole: its files are in the package, and the network is as good as was said."""

from __future__ import annotations

import subprocess
import sys
from importlib import resources

import numpy as np
import pytest

from bitplan.example import INPUT_SHAPE, PREPROCESSING, example_data


def test_the_files_are_readable_as_package_data_and_small() -> None:
    sizes = [
        len((resources.files("bitplan.example") / name).read_bytes()) for name in ("weights.safetensors", "images.npz")
    ]
    assert min(sizes) > 100_000 and sum(sizes) < 2_000_000


def test_the_images_are_split_and_balanced() -> None:
    data = example_data()
    assert data.calibration_x.shape == (512, 1, 28, 28) and data.test_x.shape == (2000, 1, 28, 28)
    assert data.calibration_x.dtype == data.test_x.dtype == np.uint8 and data.shape == INPUT_SHAPE
    assert data.calibration_y is not None and data.test_y is not None
    assert np.bincount(data.test_y).tolist() == [200] * 10
    assert len(np.unique(np.concatenate([data.calibration_x, data.test_x]).reshape(2512, -1), axis=0)) > 2500


def test_the_network_classifies_as_well_as_promised() -> None:
    torch = pytest.importorskip("torch")
    from bitplan.example import example_module

    data, module = example_data(), example_module()
    assert data.test_y is not None and not module.training
    x = (data.test_x[:1000].astype(np.float32) - PREPROCESSING.mean[0]) / np.float32(PREPROCESSING.std[0])
    with torch.inference_mode():
        hits = module(torch.from_numpy(x)).argmax(1).numpy() == data.test_y[:1000]
    assert hits.mean() > 0.925


def test_the_data_needs_no_torch() -> None:
    code = (
        "import sys; sys.modules['torch'] = None\nfrom bitplan.example import example_data; print(example_data().name)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert run.stdout.strip() == "embedded example", run.stderr
