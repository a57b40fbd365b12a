"""Folders of image files: one subfolder per class, or flat and without labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bitplan.data.dataset import Dataset, Images, Labels
from bitplan.data.split import Indices, Split
from bitplan.errors import DataError
from bitplan.network import Preprocessing

SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
TRAINING, TEST = ("calibration", "train", "training"), ("test", "val", "validation")
Files = tuple[list[Path], Labels | None]


def load_folder(
    folder: Path, split: Split, preprocessing: Preprocessing, input_shape: Sequence[int] | None = None
) -> Dataset:
    """Images uint8 [N, C, H, W]: short side resized (bilinear) and centre cropped as `preprocessing` says, grey where
    the network takes one channel, else RGB. Only the images that are used are decoded.

    Classes are the subfolders' names in alphabetical order. Where the subfolders are called `train` (or
    `calibration`) and `test` (or `val`), they are the split. Raises DataError."""
    channels = input_shape[0] if input_shape else 3
    if channels not in (1, 3):
        raise DataError(
            f"{folder}: image files have 1 or 3 channels but the network takes {channels}; give an .npz file"
        )
    parts = _own_split(folder)
    if parts is None:
        paths, labels = _files(folder)
        calibration, test = split.divide(len(paths), str(folder))
        chosen = [_chosen(paths, labels, calibration), _chosen(paths, labels, test)]
    else:
        (first_paths, first_labels), (second_paths, second_labels) = parts
        calibration, test = split.choose(len(first_paths), len(second_paths))
        chosen = [_chosen(first_paths, first_labels, calibration), _chosen(second_paths, second_labels, test)]
    decoder = Decoder(preprocessing, channels, tuple(input_shape[1:]) if input_shape else None)
    calibration_x, test_x = (decoder.decode_all(paths) for paths, _ in chosen)
    return Dataset(calibration_x, chosen[0][1], test_x, chosen[1][1], str(folder))


def _own_split(folder: Path) -> tuple[Files, Files] | None:
    names = {entry.name.lower(): entry for entry in _subfolders(folder)}
    first = next((names[name] for name in TRAINING if name in names), None)
    second = next((names[name] for name in TEST if name in names), None)
    if first is None or second is None or not set(names) <= {*TRAINING, *TEST}:
        return None
    classes = [[entry.name for entry in _subfolders(part)] for part in (first, second)]
    if classes[0] != classes[1]:
        odd = sorted(set(classes[0]) ^ set(classes[1]))
        raise DataError(f"{first} and {second} have different classes ({', '.join(odd[:5])}); give both the same")
    return _files(first), _files(second)


def _files(folder: Path) -> Files:
    """The image files below a folder, and their labels where they lie in one subfolder per class."""
    classes = _subfolders(folder)
    flat = _images(folder, recursive=False)
    if classes and flat:
        raise DataError(f"{folder} holds both images and subfolders; give one subfolder per class, or images alone")
    if flat:
        return flat, None
    paths: list[Path] = []
    labels: list[int] = []
    for label, entry in enumerate(classes):
        found = _images(entry, recursive=True)
        if not found:
            raise DataError(f"class folder {entry} holds no image; looked for {', '.join(SUFFIXES)}")
        paths += found
        labels += [label] * len(found)
    if not paths:
        raise DataError(f"{folder} holds no image; looked for {', '.join(SUFFIXES)} there and in subfolders")
    return paths, np.asarray(labels, np.int64)


def _subfolders(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _images(folder: Path, *, recursive: bool) -> list[Path]:
    entries = folder.rglob("*") if recursive else folder.iterdir()
    return sorted(e for e in entries if e.suffix.lower() in SUFFIXES and e.is_file() and not e.name.startswith("."))


def _chosen(paths: list[Path], labels: Labels | None, indices: Indices) -> tuple[list[Path], Labels | None]:
    return [paths[i] for i in indices], None if labels is None else labels[indices]


class Decoder:
    """Decodes image files to one size. `size` is the (height, width) that the network takes, if known."""

    def __init__(self, preprocessing: Preprocessing, channels: int, size: tuple[int, ...] | None) -> None:
        self.preprocessing, self.channels, self.size = preprocessing, channels, size

    def decode_all(self, paths: Sequence[Path]) -> Images:
        """uint8 [N, C, H, W]. Raises DataError naming the file."""
        first = self.decode(paths[0])
        size = self.size or first.shape[1:]
        try:
            images = np.empty((len(paths), self.channels, *size), np.uint8)
        except MemoryError:
            raise DataError(f"{len(paths)} images of {size} do not fit into memory; limit their number") from None
        for i, path in enumerate(paths):
            image = first if i == 0 else self.decode(path)
            if image.shape[1:] != size:
                raise DataError(
                    f"{path} is {image.shape[1]} x {image.shape[2]} (height x width) instead of {size[0]} x {size[1]}; "
                    "give --resize and --crop"
                )
            images[i] = image
        return images

    def decode(self, path: Path) -> Images:
        """One image, uint8 [C, H, W]."""
        try:
            with Image.open(path) as file:
                image = self._cropped(self._resized(file.convert("L" if self.channels == 1 else "RGB")), path)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise DataError(f"{path} is not a readable image: {error}; remove it, or copy it again") from None
        array: np.ndarray[Any, Any] = np.asarray(image)
        return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)

    def _resized(self, image: Image.Image) -> Image.Image:
        short = self.preprocessing.resize
        width, height = image.size
        if not short or short == min(width, height):
            return image
        # The long side is rounded down, as torchvision's Resize does it.
        size = (short, int(short * height / width)) if width <= height else (int(short * width / height), short)
        return image.resize(size, Image.Resampling.BILINEAR)

    def _cropped(self, image: Image.Image, path: Path) -> Image.Image:
        crop = self.preprocessing.crop
        width, height = image.size
        if not crop:
            return image
        if min(width, height) < crop:
            raise DataError(
                f"{path} is {height} x {width}, smaller than the crop of {crop}; give --resize {crop} or more"
            )
        left, top = round((width - crop) / 2), round((height - crop) / 2)
        return image.crop((left, top, left + crop, top + crop))
