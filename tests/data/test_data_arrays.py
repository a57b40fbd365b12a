"""Data as arrays: .npz files and functions, their split, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitplan.data import load_data
from bitplan.errors import BitplanError, DataError, UsageError


def images(count: int = 20, channels: int = 3, size: int = 4) -> np.ndarray[Any, Any]:
    """Images that each hold their own number."""
    x = np.zeros((count, channels, size, size), np.uint8)
    x[:] = np.arange(count, dtype=np.uint8).reshape(-1, 1, 1, 1)
    return x


def saved(tmp_path: Path, **arrays: Any) -> str:
    np.savez(tmp_path / "data.npz", **arrays)
    return str(tmp_path / "data.npz")


def numbers(x: np.ndarray[Any, Any]) -> list[int]:
    return [int(n) for n in x[:, 0, 0, 0]]


def test_a_set_without_a_split_is_divided_without_overlap_and_loss(tmp_path: Path) -> None:
    spec = saved(tmp_path, x=images(), y=np.arange(20, dtype=np.uint8))
    data = load_data(spec, calibration=6)
    assert len(data.calibration_x) == 6 and len(data.test_x) == 14
    assert sorted(numbers(data.calibration_x) + numbers(data.test_x)) == list(range(20))
    assert data.calibration_y is not None and data.calibration_y.tolist() == numbers(data.calibration_x)
    assert data.test_y is not None and data.test_y.tolist() == numbers(data.test_x)
    assert data.test_y.dtype == np.int64 and data.shape == (3, 4, 4) and data.name == spec


def test_the_split_depends_on_the_seed_alone(tmp_path: Path) -> None:
    spec = saved(tmp_path, x=images())
    first, again, other = (load_data(spec, calibration=6, seed=seed) for seed in (0, 0, 1))
    assert numbers(first.calibration_x) == numbers(again.calibration_x) != numbers(other.calibration_x)
    assert first.calibration_y is None and first.test_y is None


def test_at_most_half_of_a_small_set_calibrates(tmp_path: Path) -> None:
    data = load_data(saved(tmp_path, x=images(9)))
    assert (len(data.calibration_x), len(data.test_x)) == (4, 5)


def test_the_limit_takes_a_part_of_the_same_test_images(tmp_path: Path) -> None:
    spec = saved(tmp_path, x=images())
    whole, part = load_data(spec, calibration=6), load_data(spec, calibration=6, limit=3)
    assert len(part.test_x) == 3 and set(numbers(part.test_x)) < set(numbers(whole.test_x))
    assert numbers(part.calibration_x) == numbers(whole.calibration_x)


def test_a_split_of_its_own_is_kept(tmp_path: Path) -> None:
    x = images()
    spec = saved(tmp_path, calibration_x=x[:8], test_x=x[8:], test_y=np.arange(12))
    data = load_data(spec)
    assert numbers(data.calibration_x) == list(range(8)) and numbers(data.test_x) == list(range(8, 20))
    assert data.calibration_y is None and data.test_y is not None and data.test_y.tolist() == list(range(12))
    part = load_data(spec, calibration=3, limit=5)
    assert set(numbers(part.calibration_x)) < set(range(8)) and set(numbers(part.test_x)) < set(range(8, 20))
    assert (len(part.calibration_x), len(part.test_x)) == (3, 5)


def test_float_images_and_vectors_are_taken(tmp_path: Path) -> None:
    assert load_data(saved(tmp_path, x=images().astype(np.float32))).test_x.dtype == np.float32
    vectors = np.zeros((4, 7), np.float32)
    assert load_data(saved(tmp_path, x=vectors), input_shape=(7,)).shape == (7,)


X = images()
HOLED = X.astype(np.float32)
HOLED[13, 1, 2, 3] = np.nan

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "rank 3": ({"x": X[:, 0]}, r"x: the images have shape \[20, 4, 4\]; they must be \[N, C, H, W\]; a grey image"),
    "rank 2": ({"x": X[:, 0, 0]}, r"they must be \[N, C, H, W\]$"),
    "float64": ({"x": X.astype(float)}, r"are float64; they must be uint8 or float32"),
    "object": ({"x": np.array([None, 1], object)}, "holds pickled objects, which are refused"),
    "empty": ({"x": X[:0]}, r"there are no images \(shape \[0, 3, 4, 4\]\)"),
    "one image": ({"x": X[:1]}, "1 image cannot be split"),
    "NaN": ({"x": HOLED}, r"image 13 holds nan at \[1, 2, 3\]"),
    "channels": ({"x": X[:, :1]}, r"\[1, 4, 4\] but the network takes \[3, 4, 4\]: 1 channels instead of 3"),
    "size": ({"x": images(size=5)}, r"\[3, 5, 5\] but the network takes \[3, 4, 4\]; resize"),
    "channels last": ({"x": X.transpose(0, 2, 3, 1)}, r"channels last: x.transpose\(0, 3, 1, 2\)"),
    "too few labels": ({"x": X, "y": np.arange(19)}, "y: there are 19 labels for 20 images"),
    "float labels": ({"x": X, "y": np.zeros(20)}, "y: the labels are float64; they must be integers"),
    "one-hot labels": ({"x": X, "y": np.zeros((20, 10), int)}, r"y: the labels have shape \[20, 10\]"),
    "negative labels": ({"x": X, "y": np.arange(20) - 3}, "label 0 is -3; labels count from zero"),
    "other names": ({"images": X}, r"holds 'images'; it must hold 'x' and optionally 'y', or"),
    "half a split": ({"calibration_x": X}, "holds 'calibration_x'; it must hold"),
    "two kinds": ({"calibration_x": X, "test_x": X.astype(np.float32)}, "they must be alike"),
    "nothing": ({}, "holds nothing"),
}


@pytest.mark.parametrize("arrays, rule", REFUSED.values(), ids=REFUSED)
def test_arrays_that_cannot_be_meant_are_refused(tmp_path: Path, arrays: dict[str, Any], rule: str) -> None:
    spec = saved(tmp_path, **arrays)
    with pytest.raises(DataError, match=rule) as caught:
        load_data(spec, input_shape=(3, 4, 4))
    assert spec in str(caught.value)


def test_channels_last_is_noticed_without_knowing_the_network(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="looks like channels last"):
        load_data(saved(tmp_path, x=X.transpose(0, 2, 3, 1)))


def test_damaged_files_are_named(tmp_path: Path) -> None:
    path = Path(saved(tmp_path, x=X))
    whole = path.read_bytes()
    for text in (whole[: len(whole) // 2], b"", b"not a zip file at all"):
        path.write_bytes(text)
        with pytest.raises(DataError, match=r"data\.npz (is damaged or not an \.npz file|holds pickled objects)"):
            load_data(str(path))
    with path.open("wb") as file:
        np.save(file, X)
    with pytest.raises(DataError, match="single array; save it by name"):
        load_data(str(path))
    with pytest.raises(DataError, match=r"there is no file .*nowhere\.npz"):
        load_data(str(tmp_path / "nowhere.npz"))


def user_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, name: str = "their_data") -> None:
    (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, name, raising=False)


FUNCTIONS = """
import numpy as np
x = np.zeros((6, 1, 2, 2), np.uint8)
def alone(): return x
def pair(): return x, np.arange(6)
def divided(): return {"calibration_x": x[:2], "test_x": x[2:]}
def three(): return x, x, x
def listed(): return [1, 2]
def misnamed(): return {"images": x}
def needs(argument): return x
def fails(): raise RuntimeError("disk on fire")
def leaves(): raise SystemExit(0)
def tensor():
    import torch
    return torch.zeros(6, 1, 2, 2), torch.arange(6)
def later():
    import their_helper
    return their_helper.x
constant = 3
"""


def test_a_function_gives_images_a_pair_or_a_dict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    user_module(tmp_path, monkeypatch, "import numpy as np\nx = np.ones((4, 1, 2, 2), np.uint8)", "their_helper")
    user_module(tmp_path, monkeypatch, FUNCTIONS)
    before = list(sys.path)
    assert len(load_data("their_data:alone").test_x) == 3
    pair = load_data("their_data:pair").test_y
    assert pair is not None and len(pair) == 3
    assert len(load_data("their_data:divided").test_x) == 4
    assert load_data("their_data:later").test_x.max() == 1, "the folder is importable while the function runs"
    assert sys.path == before


def test_torch_tensors_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    user_module(tmp_path, monkeypatch, FUNCTIONS)
    data = load_data("their_data:tensor")
    assert data.test_x.dtype == np.float32 and data.test_y is not None and data.test_y.dtype == np.int64


@pytest.mark.parametrize(
    "spec, rule",
    [
        ("their_data:three", "returned 3 values; return x, "),
        ("their_data:listed", "the images are a list; they must be an array"),
        ("their_data:misnamed", "holds 'images'; it must hold"),
        ("their_data:needs", "called without arguments, raised TypeError: .*argument"),
        ("their_data:fails", "raised RuntimeError: disk on fire"),
        ("their_data:leaves", "raised SystemExit: 0"),
        ("their_data:alnoe", "has no function 'alnoe'; did you mean 'alone'"),
        ("their_data:constant", "has no function 'constant'"),
        ("their_dada:alone", "there is no module 'their_dada', neither installed nor in"),
        ("numpy.nothing:alone", "there is no module 'numpy.nothing'"),
        ("broken:alone", r"importing broken failed with SyntaxError"),
        ("lacking:alone", r"importing lacking failed: No module named 'package_of_nobody'"),
        ("cifar-10:folder", "unknown data set 'cifar-10'; did you mean 'cifar10'"),
        ("imagenet:/data", "unknown data set 'imagenet'; data sets are cifar10, cifar100, fashion-mnist, mnist"),
        ("nowhere", "'nowhere' does not exist; give a file.npz, an image folder, pkg.mod:function, or cifar10:DIR"),
        ("their_data.py", "is a file of an unknown kind; give"),
        ("cifar10:nowhere", "there is no folder 'nowhere'"),
        ("mnist:", "there is no folder ''"),
    ],
)
def test_a_wrong_spec_is_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: str, rule: str) -> None:
    user_module(tmp_path, monkeypatch, "def f(:", "broken")
    user_module(tmp_path, monkeypatch, "import package_of_nobody", "lacking")
    user_module(tmp_path, monkeypatch, FUNCTIONS)
    with pytest.raises(BitplanError, match=rule):
        load_data(spec)


@pytest.mark.parametrize("wish", [{"calibration": 0}, {"limit": 0}, {"calibration": -1}])
def test_sizes_below_one_are_refused(tmp_path: Path, wish: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="must be at least one image"):
        load_data(saved(tmp_path, x=X), **wish)


def test_arrays_load_without_torch(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = sys.modules['torchvision'] = None\n"
        f"from bitplan.data import load_data; print(len(load_data({saved(tmp_path, x=X)!r}).test_x))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert run.stdout.strip() == "10", run.stderr
