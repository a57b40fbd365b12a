"""CIFAR batches and idx files as torchvision keeps them on disk."""

from __future__ import annotations

import gzip
import hashlib
import pickle
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitplan.data import cifar, load_data
from bitplan.data.load import KNOWN_SETS
from bitplan.errors import DataError

DEBIAN = Path("/usr/share/datasets/fashion-mnist")


def idx(array: np.ndarray[Any, Any]) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def write_idx(folder: Path, *, zipped: bool) -> np.ndarray[Any, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    x = np.random.default_rng(0).integers(0, 256, (10, 28, 28), np.uint8)
    y = np.arange(10, dtype=np.uint8)
    for part, chosen in (("train", slice(0, 6)), ("t10k", slice(6, 10))):
        for stem, array in ((f"{part}-images-idx3-ubyte", x[chosen]), (f"{part}-labels-idx1-ubyte", y[chosen])):
            data = idx(array)
            (folder / f"{stem}{'.gz' if zipped else ''}").write_bytes(gzip.compress(data) if zipped else data)
    return x


@pytest.mark.parametrize("place, zipped", [("FashionMNIST/raw", False), ("raw", True), (".", True)])
def test_idx_files_are_found_where_torchvision_and_debian_put_them(tmp_path: Path, place: str, zipped: bool) -> None:
    x = write_idx(tmp_path / place, zipped=zipped)
    data = load_data(f"fashion-mnist:{tmp_path}", input_shape=(1, 28, 28))
    assert np.array_equal(data.calibration_x, x[:6, None]) and np.array_equal(data.test_x, x[6:, None])
    assert data.test_y is not None and data.test_y.tolist() == [6, 7, 8, 9]


def test_mnist_has_its_own_folder(tmp_path: Path) -> None:
    write_idx(tmp_path / "MNIST" / "raw", zipped=False)
    assert load_data(f"mnist:{tmp_path}").shape == (1, 28, 28)
    with pytest.raises(DataError, match=r"no FashionMNIST in .*: looked for train-images-idx3-ubyte\[.gz\] in .*raw"):
        load_data(f"fashion-mnist:{tmp_path}")


def test_damaged_idx_files_are_named(tmp_path: Path) -> None:
    write_idx(tmp_path, zipped=False)
    path = tmp_path / "t10k-labels-idx1-ubyte"
    whole = path.read_bytes()
    for text, rule in (
        (whole[:-1], "has 11 bytes instead of 12"),
        (whole + b"0", "has 13 bytes instead of 12"),
        (b"\0\0\r" + whole[3:], "not an idx file"),
        (b"", "not an idx file"),
    ):
        path.write_bytes(text)
        with pytest.raises(DataError, match=f"{path.name}.*{rule}"):
            load_data(f"mnist:{tmp_path}")
    path.unlink()
    with pytest.raises(DataError, match="lacks t10k-labels-idx1-ubyte"):
        load_data(f"mnist:{tmp_path}")
    (tmp_path / f"{path.name}.gz").write_bytes(gzip.compress(whole)[:-9])
    with pytest.raises(DataError, match="cannot be read"):
        load_data(f"mnist:{tmp_path}")


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="the package dataset-fashion-mnist is not installed")
def test_debians_fashion_mnist_loads() -> None:
    data = load_data(f"fashion-mnist:{DEBIAN}", limit=500)
    assert data.calibration_x.shape == (512, 1, 28, 28) and data.test_x.shape == (500, 1, 28, 28)
    assert data.test_y is not None and set(data.test_y.tolist()) == set(range(10))


def write_batches(folder: Path, files: cifar.CifarFiles) -> cifar.CifarFiles:
    """Batches of four images each, and the file list with their checksums."""
    folder.mkdir(parents=True, exist_ok=True)
    listed: dict[str, tuple[tuple[str, str], ...]] = {}
    for part in ("training", "test"):
        rows = []
        for number, (name, _) in enumerate(getattr(files, part)):
            data = np.full((4, 3072), number, np.uint8)
            data[:, 0], data[:, 1024] = 100, 200  # the first pixel's red and green
            raw = pickle.dumps({"data": data, files.labels: [0, 1, 2, number]}, protocol=2)
            (folder / name).write_bytes(raw)
            rows.append((name, hashlib.md5(raw).hexdigest()))
        listed[part] = tuple(rows)
    return replace(files, training=listed["training"], test=listed["test"])


@pytest.mark.parametrize("name", ["CIFAR10", "CIFAR100"])
def test_batches_with_the_listed_checksum_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    files = getattr(cifar, name)
    listed = write_batches(tmp_path / files.folder, files)
    for folder in (tmp_path, tmp_path / files.folder):
        arrays = cifar.load_cifar(folder, listed)
        assert arrays["calibration_x"].shape == (4 * len(files.training), 3, 32, 32)
        assert arrays["calibration_x"][0, :2, 0, 0].tolist() == [100, 200]
        assert arrays["calibration_y"][:3].tolist() == [0, 1, 2] and len(arrays["test_y"]) == 4
    monkeypatch.setitem(KNOWN_SETS, name.lower(), lambda folder: cifar.load_cifar(folder, listed))
    assert load_data(f"{name.lower()}:{tmp_path}").shape == (3, 32, 32)


class Trap:
    """Unpickling it would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_a_batch_with_another_checksum_is_never_unpickled(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    write_batches(folder, cifar.CIFAR10)
    (folder / "data_batch_1").write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    with pytest.raises(DataError, match=r"data_batch_1 has md5 \w{32} instead of c99cafc152244af753f735de768cd75f"):
        load_data(f"cifar10:{tmp_path}")
    assert not (tmp_path / "sprung").exists()


def test_missing_batches_are_named(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"no cifar-100-python in .*: looked for the file 'train' in .*cifar-100-python, "
    ):
        load_data(f"cifar100:{tmp_path}")
    listed = write_batches(tmp_path, cifar.CIFAR10)
    (tmp_path / "test_batch").unlink()
    with pytest.raises(DataError, match="test_batch cannot be read: No such file"):
        cifar.load_cifar(tmp_path, listed)


def test_the_checksums_are_torchvisions() -> None:
    datasets = pytest.importorskip("torchvision.datasets")
    for ours, theirs in ((cifar.CIFAR10, datasets.CIFAR10), (cifar.CIFAR100, datasets.CIFAR100)):
        assert ours.folder == theirs.base_folder
        assert [list(row) for row in ours.training] == theirs.train_list
        assert [list(row) for row in ours.test] == theirs.test_list
