"""MNIST and Fashion-MNIST from their idx files, gzipped or not."""

from __future__ import annotations

import gzip
import zlib
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitplan.errors import DataError

STEMS = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")


def read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """One idx file of bytes: two zero bytes, type 8, number of dimensions, big-endian sizes, values.
    Raises DataError for a damaged file."""
    try:
        raw = path.read_bytes()
        if path.suffix == ".gz":
            raw = gzip.decompress(raw)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {error}; fetch it again") from None
    header = 4 + 4 * dimensions
    if len(raw) < header or raw[:4] != bytes([0, 0, 8, dimensions]):
        raise DataError(f"{path} is not an idx file of bytes with {dimensions} dimensions; fetch it again")
    shape = [int(size) for size in np.frombuffer(raw, ">u4", dimensions, 4)]
    if len(raw) != header + prod(shape):
        raise DataError(f"{path} has {len(raw)} bytes instead of {header + prod(shape)}; fetch it again")
    return np.frombuffer(raw, np.uint8, offset=header).reshape(shape)


def load_idx(folder: Path, dataset: str) -> dict[str, Any]:
    """Training and test images uint8 [N, 1, 28, 28] and labels from torchvision's folder layout
    (`<folder>/<dataset>/raw`), a `raw` folder, or the folder itself. Raises DataError with what was looked for."""
    places = [folder / dataset / "raw", folder / "raw", folder]
    for place in places:
        paths = [_existing(place, stem) for stem in STEMS]
        if any(paths):
            break
    else:
        raise DataError(
            f"no {dataset} in {folder}: looked for {STEMS[0]}-ubyte[.gz] in {', '.join(map(str, places))}; name the folder "
            "that torchvision downloaded it to"
        )
    missing = [f"{stem}-ubyte" for stem, path in zip(STEMS, paths, strict=True) if path is None]
    if missing:
        raise DataError(f"{place} lacks {', '.join(missing)} (or the same with .gz); fetch the data set again")
    train_x, train_y, test_x, test_y = (
        read_idx(path, int(stem[-1])) for stem, path in zip(STEMS, paths, strict=True) if path
    )
    return {"calibration_x": train_x[:, None], "calibration_y": train_y, "test_x": test_x[:, None], "test_y": test_y}


def _existing(folder: Path, stem: str) -> Path | None:
    for name in (f"{stem}-ubyte", f"{stem}-ubyte.gz"):
        if (folder / name).is_file():
            return folder / name
    return None
