"""What `--data` accepts.

    file.npz              arrays x and optionally y, or calibration_x, test_x (and _y); see arrays.py
    cifar10:DIR           CIFAR-10 and CIFAR-100 as torchvision keeps them in DIR, nothing is downloaded
    cifar100:DIR
    fashion-mnist:DIR     idx files in torchvision's layout or in DIR itself
    mnist:DIR
    DIR                   image files, one subfolder per class or flat; see folder.py
    pkg.mod:function      returns x, (x, y), or a dict named like an .npz file

Images stay raw: mean and std belong to the network. Only image folders are resized and cropped; arrays must have
the network's size. How calibration and test images are chosen: split.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bitplan.data.arrays import from_arrays, from_named, load_function, load_npz
from bitplan.data.cifar import CIFAR10, CIFAR100, load_cifar
from bitplan.data.dataset import DEFAULT_CALIBRATION, Dataset, Images, Labels
from bitplan.data.folder import load_folder
from bitplan.data.idx import load_idx
from bitplan.data.split import Split
from bitplan.errors import DataError, UsageError
from bitplan.network import Preprocessing
from bitplan.suggest import suggestion
from bitplan.user_code import FUNCTION_SPEC

KNOWN_SETS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "cifar10": lambda folder: load_cifar(folder, CIFAR10),
    "cifar100": lambda folder: load_cifar(folder, CIFAR100),
    "fashion-mnist": lambda folder: load_idx(folder, "FashionMNIST"),
    "mnist": lambda folder: load_idx(folder, "MNIST"),
}
FORMS = f"a file.npz, an image folder, pkg.mod:function, or {', '.join(f'{name}:DIR' for name in KNOWN_SETS)}"


def load_data(
    spec: str | Mapping[str, Any],
    *,
    calibration: int = DEFAULT_CALIBRATION,
    limit: int | None = None,
    seed: int = 0,
    preprocessing: Preprocessing | None = None,
    input_shape: Sequence[int] | None = None,
) -> Dataset:
    """Loads, checks and splits a data set; arrays or torch tensors named as in an .npz file are taken as they are.

    calibration, limit: at most so many calibration and test images; seed: of the shuffle (split.py);
    preprocessing: resize and crop of image files; input_shape: the network's input (C, H, W), checked if given.
    Raises UsageError for a spec of no known form, DataError for data that cannot be used."""
    return _load(spec, Split(calibration, limit, seed), preprocessing, input_shape)


def load_training_data(
    spec: str, *, preprocessing: Preprocessing | None = None, input_shape: Sequence[int] | None = None
) -> tuple[Images, Labels | None]:
    """The training part of a data set, or all of one without parts: images and labels. Raises as `load_data`."""
    found = _load(spec, Split.everything(), preprocessing, input_shape)
    return found.calibration_x, found.calibration_y


def _load(
    spec: str | Mapping[str, Any], split: Split, preprocessing: Preprocessing | None, input_shape: Sequence[int] | None
) -> Dataset:
    if not isinstance(spec, str):
        return from_named(spec, "data", split, input_shape)
    name, colon, rest = spec.partition(":")
    path = Path(spec)
    if colon and name in KNOWN_SETS:
        folder = Path(rest)
        if not rest or not folder.is_dir():
            raise DataError(f"data {spec!r}: there is no folder {rest!r}; name the folder that holds {name}")
        return from_arrays(KNOWN_SETS[name](folder), spec, split, input_shape)
    if path.suffix == ".npz":
        return load_npz(path, split, input_shape)
    if path.is_dir():
        return load_folder(path, split, preprocessing or Preprocessing(), input_shape)
    if FUNCTION_SPEC.fullmatch(spec):
        return load_function(spec, split, input_shape)
    if colon:
        raise UsageError(f"data {spec!r}: unknown data set {name!r}; {suggestion(name, KNOWN_SETS, 'data sets')}")
    what = "is a file of an unknown kind" if path.exists() else "does not exist"
    raise UsageError(f"data {spec!r} {what}; give {FORMS}")
