"""Data that comes as arrays: .npz files, and what a user's function returns."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bitplan.data.dataset import Dataset, Images, Labels, check_images, check_labels
from bitplan.data.split import Indices, Split
from bitplan.errors import DataError
from bitplan.user_code import call_function

WHOLE = ("x", "y")
DIVIDED = ("calibration_x", "calibration_y", "test_x", "test_y")
LAYOUTS = "'x' and optionally 'y', or 'calibration_x' and 'test_x' with optionally 'calibration_y' and 'test_y'"


def load_npz(path: Path, split: Split, input_shape: Sequence[int] | None = None) -> Dataset:
    """The arrays of an .npz file (names: `LAYOUTS`). Object arrays and pickles are refused. Raises DataError."""
    try:
        with path.open("rb") as stream:
            file = np.load(stream, allow_pickle=False)
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise DataError(f"{path} holds a single array; save it by name: numpy.savez({path.name!r}, x=images)")
            arrays = {name: file[name] for name in _layout(file.files, str(path))}
    except FileNotFoundError:
        raise DataError(f"there is no file {path}; name an existing .npz file") from None
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error, MemoryError) as error:
        if "pickle" in str(error):
            raise DataError(f"{path} holds pickled objects, which are refused; save plain arrays") from None
        raise DataError(f"{path} is damaged or not an .npz file: {error}; write it anew with numpy.savez") from None
    return from_arrays(arrays, str(path), split, input_shape)


def load_function(spec: str, split: Split, input_shape: Sequence[int] | None = None) -> Dataset:
    """What `pkg.mod:function` returns when called without arguments: x, (x, y), or a dict named like an .npz file;
    numpy arrays or torch tensors. Raises UsageError and DataError."""
    found = call_function(spec, "data")
    if isinstance(found, Mapping):
        arrays = {str(name): value for name, value in found.items()}
    elif isinstance(found, tuple):
        if len(found) != 2:
            raise DataError(f"{spec} returned {len(found)} values; return x, (x, y), or a dict with {LAYOUTS}")
        arrays = {"x": found[0], "y": found[1]}
    else:
        arrays = {"x": found}
    return from_named(arrays, spec, split, input_shape)


def from_named(
    arrays: Mapping[str, Any], source: str, split: Split, input_shape: Sequence[int] | None = None
) -> Dataset:
    """A Dataset from arrays or torch tensors. Raises DataError where they are not named as in `LAYOUTS`."""
    _layout(arrays, source)
    return from_arrays({name: _numpy(value) for name, value in arrays.items()}, source, split, input_shape)


def from_arrays(
    arrays: Mapping[str, Any], source: str, split: Split, input_shape: Sequence[int] | None = None
) -> Dataset:
    """A Dataset from arrays named as in `LAYOUTS`. Raises DataError, naming source and array."""
    x, y = _pair(arrays, "x", "y", source, input_shape) if "x" in arrays else (None, None)
    if x is not None:
        return Dataset(*_taken(x, y, *split.divide(len(x), source)), name=source)
    calibration_x, calibration_y = _pair(arrays, "calibration_x", "calibration_y", source, input_shape)
    test_x, test_y = _pair(arrays, "test_x", "test_y", source, input_shape)
    if calibration_x.shape[1:] != test_x.shape[1:] or calibration_x.dtype != test_x.dtype:
        raise DataError(
            f"{source}: calibration_x is {calibration_x.dtype} {list(calibration_x.shape)} but test_x is "
            f"{test_x.dtype} {list(test_x.shape)}; they must be alike"
        )
    first, second = split.choose(len(calibration_x), len(test_x))
    return Dataset(
        calibration_x[first],
        None if calibration_y is None else calibration_y[first],
        test_x[second],
        None if test_y is None else test_y[second],
        source,
    )


def _pair(
    arrays: Mapping[str, Any], x_name: str, y_name: str, source: str, input_shape: Sequence[int] | None
) -> tuple[Images, Labels | None]:
    x = check_images(arrays[x_name], f"{source}, {x_name}", input_shape)
    return x, check_labels(arrays.get(y_name), len(x), f"{source}, {y_name}")


def _taken(
    x: Images, y: Labels | None, calibration: Indices, test: Indices
) -> tuple[Images, Labels | None, Images, Labels | None]:
    if y is None:
        return x[calibration], None, x[test], None
    return x[calibration], y[calibration], x[test], y[test]


def _layout(names: Any, source: str) -> list[str]:
    """The names that count. Raises DataError for a layout that is neither of the two."""
    found = list(names)
    for layout, required in ((WHOLE, {"x"}), (DIVIDED, {"calibration_x", "test_x"})):
        if required <= set(found) <= set(layout):
            return found
    raise DataError(f"{source} holds {', '.join(map(repr, found)) or 'nothing'}; it must hold {LAYOUTS}")


def _numpy(value: Any) -> Any:
    """A torch tensor as an array (without importing torch); anything else as it is."""
    if hasattr(value, "detach"):
        return value.detach().cpu().numpy()
    return value
