"""Dataset: checked arrays of raw images and labels, split into calibration and test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitplan.errors import DataError
from bitplan.network import Shape

Images = NDArray[Any]
"""uint8 or float32 [N, C, H, W] (or [N, features]), on the scale that the preprocessing states."""
Labels = NDArray[np.int64]

DEFAULT_CALIBRATION = 512


@dataclass(frozen=True)
class Dataset:
    """Raw images for calibration and for test, disjoint, with labels [N] where they are known."""

    calibration_x: Images
    calibration_y: Labels | None
    test_x: Images
    test_y: Labels | None
    name: str

    @property
    def shape(self) -> Shape:
        """One image's shape, (C, H, W) as a rule."""
        return tuple(self.calibration_x.shape[1:])


def check_images(x: object, source: str, input_shape: Sequence[int] | None = None) -> Images:
    """The images as a contiguous array. Raises DataError, led by `source`, where they are not uint8 or float32
    [N, C, H, W], not of the network's shape (`input_shape`, batch left out), empty, or not finite."""
    if not isinstance(x, np.ndarray):
        raise DataError(f"{source}: the images are a {type(x).__name__}; they must be an array [N, C, H, W]")
    if x.dtype not in (np.uint8, np.float32):
        raise DataError(f"{source}: the images are {x.dtype}; they must be uint8 or float32 (x.astype('float32'))")
    axes = len(input_shape) if input_shape else 3
    wanted = "[N, C, H, W]" if axes == 3 else f"[N, {', '.join(map(str, input_shape or ()))}]"
    if x.ndim != axes + 1:
        hint = "; a grey image needs one channel: x[:, None]" if axes == 3 and x.ndim == 3 else ""
        raise DataError(f"{source}: the images have shape {list(x.shape)}; they must be {wanted}{hint}")
    if x.size == 0:
        raise DataError(f"{source}: there are no images (shape {list(x.shape)}); give one at least")
    if input_shape and tuple(x.shape[1:]) != tuple(input_shape):
        _explain_shape(x, source, tuple(input_shape))
    if not input_shape and x.shape[-1] in (1, 3) and x.shape[1] not in (1, 3):
        raise DataError(
            f"{source}: the images have shape {list(x.shape)}, which looks like channels last; "
            "they must be [N, C, H, W]: x.transpose(0, 3, 1, 2)"
        )
    if x.dtype == np.float32:
        for start in range(0, len(x), 256):  # in pieces: the mask of a large set would double its memory
            bad = ~np.isfinite(x[start : start + 256])
            if bad.any():
                index = [int(i) for i in np.argwhere(bad)[0]]
                index[0] += start
                value = x[tuple(index)]
                raise DataError(f"{source}: image {index[0]} holds {value} at {index[1:]}; all values must be finite")
    return np.ascontiguousarray(x)


def _explain_shape(x: Images, source: str, wanted: Shape) -> None:
    found = tuple(x.shape[1:])
    text = f"{source}: the images have shape {list(found)} but the network takes {list(wanted)}"
    if len(wanted) == 3 and found == (*wanted[1:], wanted[0]):
        raise DataError(f"{text}; they are channels last: x.transpose(0, 3, 1, 2)")
    if len(wanted) == 3 and found[0] != wanted[0]:
        raise DataError(
            f"{text}: {found[0]} channels instead of {wanted[0]}"
            "; give images with as many channels as the first layer reads"
        )
    raise DataError(f"{text}; resize them first (--resize and --crop do so for image folders)")


def check_labels(y: object, count: int, source: str) -> Labels | None:
    """The labels as int64, or None where there are none. Raises DataError where they are not `count` non-negative
    integers in one dimension."""
    if y is None:
        return None
    if not isinstance(y, np.ndarray):
        raise DataError(f"{source}: the labels are a {type(y).__name__}; they must be an integer array [N]")
    if not np.issubdtype(y.dtype, np.integer):
        raise DataError(f"{source}: the labels are {y.dtype}; they must be integers, the index of the class")
    if y.ndim != 1:
        raise DataError(f"{source}: the labels have shape {list(y.shape)}; they must be [N], the index of the class")
    if len(y) != count:
        raise DataError(f"{source}: there are {len(y)} labels for {count} images; give one for each image")
    if y.size and int(y.min()) < 0:
        raise DataError(f"{source}: label {int(np.argmin(y))} is {int(y.min())}; labels count from zero")
    return y.astype(np.int64)
