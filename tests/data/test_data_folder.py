"""Folders of image files: classes, splits, resize and crop."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bitplan.data import load_data
from bitplan.errors import DataError
from bitplan.network import Preprocessing


def write_image(path: Path, value: int = 0, size: tuple[int, int] = (8, 8), mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value if mode == "L" else (value, 0, 255)).save(path)


def test_subfolders_are_classes_in_alphabetical_order(tmp_path: Path) -> None:
    for label, name in enumerate(["ant", "bee", "cat"]):
        for i in range(4):
            write_image(tmp_path / name / f"{i}.png", 10 * label + i)
    (tmp_path / "ant" / "notes.txt").write_text("not an image")
    (tmp_path / ".cache").mkdir()
    data = load_data(str(tmp_path), calibration=5)
    assert (len(data.calibration_x), len(data.test_x), data.shape) == (5, 7, (3, 8, 8))
    for x, y in ((data.calibration_x, data.calibration_y), (data.test_x, data.test_y)):
        assert y is not None and x[:, 0, 0, 0].astype(int).tolist() == [
            10 * c + v % 10 for c, v in zip(y, x[:, 0, 0, 0], strict=True)
        ]
        assert (x[:, 2] == 255).all()
    values = np.concatenate([data.calibration_x, data.test_x])[:, 0, 0, 0]
    assert sorted(values.tolist()) == [0, 1, 2, 3, 10, 11, 12, 13, 20, 21, 22, 23]


def test_a_flat_folder_has_no_labels(tmp_path: Path) -> None:
    for i in range(4):
        write_image(tmp_path / f"{i}.PNG", i)
    data = load_data(str(tmp_path))
    assert data.calibration_y is None and data.test_y is None and len(data.test_x) == 2


def test_train_and_val_are_a_split_and_not_classes(tmp_path: Path) -> None:
    for part, value in (("train", 1), ("val", 2)):
        for name in ("a", "b"):
            for i in range(3):
                write_image(tmp_path / part / name / f"{i}.png", value)
    data = load_data(str(tmp_path), calibration=4)
    assert (data.calibration_x[:, 0] == 1).all() and (data.test_x[:, 0] == 2).all()
    assert len(data.calibration_x) == 4 and data.test_y is not None and data.test_y.tolist() == [0, 0, 0, 1, 1, 1]
    write_image(tmp_path / "val" / "c" / "0.png")
    with pytest.raises(DataError, match=r"different classes \(c\)"):
        load_data(str(tmp_path))


def test_grey_networks_get_grey_images(tmp_path: Path) -> None:
    for i in range(2):
        write_image(tmp_path / f"{i}.png", 7, mode="L")
    assert load_data(str(tmp_path), input_shape=(1, 8, 8)).test_x[0, 0, 0, 0] == 7
    assert load_data(str(tmp_path)).shape == (3, 8, 8)


@pytest.mark.parametrize("size", [(37, 51), (51, 37), (20, 20), (33, 90)])
def test_resize_and_crop_equal_torchvisions(tmp_path: Path, size: tuple[int, int]) -> None:
    transforms = pytest.importorskip("torchvision.transforms")
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    for i in range(2):
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    data = load_data(str(tmp_path), preprocessing=Preprocessing(resize=24, crop=19), input_shape=(3, 19, 19))
    chain = transforms.Compose([transforms.Resize(24), transforms.CenterCrop(19)])
    expected = np.asarray(chain(Image.fromarray(pixels))).transpose(2, 0, 1)
    assert np.array_equal(data.test_x[0], expected)


def test_only_the_images_in_use_are_decoded(tmp_path: Path) -> None:
    for i in range(40):
        (tmp_path / f"{i:02}.png").write_bytes(b"damaged")
    healthy = load_indices(tmp_path)
    for i in healthy:
        write_image(tmp_path / f"{i:02}.png", i)
    data = load_data(str(tmp_path), calibration=3, limit=4)
    assert sorted(np.concatenate([data.calibration_x, data.test_x])[:, 0, 0, 0].tolist()) == sorted(healthy)


def load_indices(folder: Path) -> list[int]:
    """Which images a split of three and four uses, found by the documented rule."""
    order = np.random.default_rng(0).permutation(len(list(folder.iterdir())))
    return [int(i) for i in order[:7]]


def test_images_of_different_sizes_need_a_crop(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", size=(8, 8))
    write_image(tmp_path / "b.png", size=(10, 9))
    with pytest.raises(
        DataError, match=r"\.png is 8 x 8 \(height x width\) instead of 12 x 12; give --resize and --crop"
    ):
        load_data(str(tmp_path), input_shape=(3, 12, 12))
    assert load_data(str(tmp_path), preprocessing=Preprocessing(crop=8)).shape == (3, 8, 8)
    write_image(tmp_path / "c.png", size=(9, 10))
    write_image(tmp_path / "d.png", size=(11, 11))
    with pytest.raises(DataError, match=r"instead of \d+ x \d+; give --resize and --crop"):
        load_data(str(tmp_path))
    with pytest.raises(DataError, match=r"smaller than the crop of 9; give --resize 9 or more"):
        load_data(str(tmp_path), preprocessing=Preprocessing(crop=9))


def test_unusable_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no image; looked for \.jpg, \.jpeg, \.png"):
        load_data(str(tmp_path))
    (tmp_path / "a").mkdir()
    with pytest.raises(DataError, match=r"class folder .*a holds no image"):
        load_data(str(tmp_path))
    write_image(tmp_path / "a" / "0.png")
    write_image(tmp_path / "0.png")
    with pytest.raises(DataError, match="holds both images and subfolders"):
        load_data(str(tmp_path))
    with pytest.raises(DataError, match=r"the network takes 5; give an \.npz file"):
        load_data(str(tmp_path), input_shape=(5, 8, 8))


def test_a_damaged_image_is_named(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", size=(64, 64))
    write_image(tmp_path / "b.png", size=(64, 64))
    whole = (tmp_path / "b.png").read_bytes()
    for text in (b"", b"text", whole[: len(whole) // 2]):
        (tmp_path / "b.png").write_bytes(text)
        with pytest.raises(DataError, match=r"b\.png is not a readable image"):
            load_data(str(tmp_path))
