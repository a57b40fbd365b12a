"""CIFAR-10 and CIFAR-100 from torchvision's folder; a batch is unpickled only after its md5 has been checked."""

from __future__ import annotations

import hashlib
import io
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bitplan.errors import DataError


@dataclass(frozen=True, slots=True)
class CifarFiles:
    """The folder, label key, and (file, md5) of the training and test batches, as torchvision lists them."""

    folder: str
    labels: str
    training: tuple[tuple[str, str], ...]
    test: tuple[tuple[str, str], ...]


CIFAR10 = CifarFiles(
    "cifar-10-batches-py",
    "labels",
    (
        ("data_batch_1", "c99cafc152244af753f735de768cd75f"),
        ("data_batch_2", "d4bba439e000b95fd0a9bffe97cbabec"),
        ("data_batch_3", "54ebc095f3ab1f0389bbae665268c751"),
        ("data_batch_4", "634d18415352ddfa80567beed471001a"),
        ("data_batch_5", "482c414d41f54cd18b22e5b47cb7c3cb"),
    ),
    (("test_batch", "40351d587109b95175f43aff81a1287e"),),
)
CIFAR100 = CifarFiles(
    "cifar-100-python",
    "fine_labels",
    (("train", "16019d7e3df5f24257cddd939b257f8d"),),
    (("test", "f0ef6b0ae62326f3e7ffdfab6717acfc"),),
)


def load_cifar(folder: Path, files: CifarFiles) -> dict[str, Any]:
    """Training and test images uint8 [N, 3, 32, 32] and labels. Raises DataError with what was looked for, and for a
    file whose md5 is not torchvision's."""
    places = [folder / files.folder, folder]
    first = files.training[0][0]
    place = next((p for p in places if (p / first).is_file()), None)
    if place is None:
        raise DataError(
            f"no {files.folder} in {folder}: looked for the file {first!r} in {', '.join(map(str, places))}"
            "; name the folder that torchvision downloaded it to"
        )
    arrays: dict[str, Any] = {}
    for part, batches in (("calibration", files.training), ("test", files.test)):
        read = [_batch(place / name, md5, files.labels) for name, md5 in batches]
        arrays[f"{part}_x"] = np.concatenate([x for x, _ in read])
        arrays[f"{part}_y"] = np.concatenate([y for _, y in read])
    return arrays


def _batch(path: Path, md5: str, labels: str) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}; fetch the data set again") from None
    found = hashlib.md5(raw, usedforsecurity=False).hexdigest()
    if found != md5:
        raise DataError(f"{path} has md5 {found} instead of {md5}, so it is not opened; fetch the data set again")
    batch = pickle.load(io.BytesIO(raw), encoding="latin1")  # the very bytes whose md5 was checked
    return np.asarray(batch["data"], np.uint8).reshape(-1, 3, 32, 32), np.asarray(batch[labels], np.int64)
