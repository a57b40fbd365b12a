"""Models from functions, weights from files, and what is said when they do not fit."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from bitplan.errors import BitplanError, DataError, UsageError
from bitplan.model import load_model
from bitplan.network import Preprocessing

MODULE = """
import torch
from torch import nn

def build():
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))

def described():
    return build(), {"mean": [1, 2, 3], "std": (4.0, 5.0, 6.0), "resize": 10, "crop": 8, "input_shape": [3, 8, 8],
                     "licence": "MIT"}

def grey(): return build(), {"mean": 127.5, "std": 64}
def plain(): return build(), {"source": "somewhere"}
def misspelt(): return build(), {"means": [1, 2, 3], "std": [1, 2, 3]}
def lopsided(): return build(), {"mean": [1, 2, 3], "std": [1, 2]}
def zero_std(): return build(), {"mean": [1], "std": [0]}
def few_means(): return build(), {"mean": [1, 2], "std": [1, 2], "input_shape": (3, 8, 8)}
def no_shape(): return build(), {"input_shape": (3, 0, 8)}
def words(): return build(), {"mean": "grey", "std": [1]}
def state(): return build().state_dict()
def raises(): raise FileNotFoundError("weights of mine")
def half(): return build().half().train()

def nan():
    module = build()
    with torch.no_grad():
        module[1].running_var[2] = float("nan")
    return module
"""


@pytest.fixture(autouse=True)
def their_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "their_model.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "their_model", raising=False)


def trained() -> dict[str, Any]:
    """A state dict other than the one that the function builds."""
    state = load_model("their_model:build").module.state_dict()
    return {name: tensor.clone() + (1 if tensor.is_floating_point() else 0) for name, tensor in state.items()}


def same(first: dict[str, Any], second: dict[str, Any]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_a_function_in_the_current_folder_builds_the_model() -> None:
    loaded = load_model("their_model:build")
    assert loaded.preprocessing is None and loaded.example_shape is None
    assert loaded.module(torch.zeros(1, 3, 8, 8)).shape == (1, 2)


def test_the_model_is_ready_for_inference_in_float32() -> None:
    module = load_model("their_model:half").module
    assert not module.training
    assert {(p.dtype, p.requires_grad) for p in module.parameters()} == {(torch.float32, False)}


def test_the_function_may_describe_its_input() -> None:
    loaded = load_model("their_model:described")
    assert loaded.preprocessing == Preprocessing((1.0, 2.0, 3.0), (4.0, 5.0, 6.0), 10, 8)
    assert loaded.example_shape == (3, 8, 8)
    assert load_model("their_model:grey").preprocessing == Preprocessing((127.5,), (64.0,))
    assert load_model("their_model:plain").preprocessing is None


@pytest.mark.parametrize(
    "function, rule",
    [
        ("misspelt", "unknown key 'means' in its info; did you mean 'mean'"),
        ("lopsided", "mean has 3 values and std has 2"),
        ("zero_std", "finite and positive"),
        ("few_means", "mean has 2 values for 3 channels"),
        ("no_shape", r"input_shape \(3, 0, 8\) must hold positive sizes"),
        ("words", "its info cannot be used"),
        ("state", "returned a OrderedDict; return a torch.nn.Module"),
        ("raises", "raised FileNotFoundError: weights of mine"),
        ("biuld", "has no function 'biuld'; did you mean 'build'"),
        ("nan", "tensor '1.running_var' holds 1 values that are NaN or infinite"),
    ],
)
def test_what_the_function_does_wrong_is_named(function: str, rule: str) -> None:
    with pytest.raises(BitplanError, match=rule):
        load_model(f"their_model:{function}")


@pytest.mark.parametrize("spec", ["their_model", "their_model.py:build", "their_model:", "a b:c"])
def test_a_spec_of_another_form_is_refused(spec: str) -> None:
    with pytest.raises(UsageError, match=r"must look like 'pkg\.mod:function'"):
        load_model(spec)


def test_weights_come_from_safetensors() -> None:
    from safetensors.torch import save_file

    save_file(trained(), "net.safetensors")
    assert same(load_model("their_model:build", Path("net.safetensors")).module.state_dict(), trained())


@pytest.mark.parametrize("name", ["net.pt", "net.pth"])
@pytest.mark.parametrize("wrapper", [None, "state_dict", "model", "model_state_dict"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_weights_come_from_checkpoints_wrapped_or_not(name: str, wrapper: str | None, prefix: str) -> None:
    state = {prefix + key: tensor for key, tensor in trained().items()}
    torch.save({wrapper: state, "epoch": 3} if wrapper else state, name)
    assert same(load_model("their_model:build", Path(name)).module.state_dict(), trained())


def test_only_the_counters_of_batch_norms_may_be_missing() -> None:
    state = trained()
    del state["1.num_batches_tracked"]
    torch.save(state, "net.pt")
    loaded = load_model("their_model:build", Path("net.pt")).module.state_dict()
    assert torch.equal(loaded["1.running_mean"], state["1.running_mean"])


def test_tensors_that_do_not_fit_are_listed() -> None:
    state = trained()
    del state["4.bias"]
    state["5.weight"] = torch.zeros(1)
    state["0.weight"] = torch.zeros(4, 3, 5, 5)
    torch.save(state, "net.pt")
    with pytest.raises(DataError) as caught:
        load_model("their_model:build", Path("net.pt"))
    assert (
        "missing in the file: 4.bias; unknown to the model: 5.weight; of another shape: 0.weight [4, 3, 5, 5] "
        in str(caught.value)
    )


def test_a_checkpoint_with_code_in_it_is_refused_in_plain_words() -> None:
    torch.save({"weights": Path("somewhere")}, "net.pt")
    with pytest.raises(
        DataError, match=r"net\.pt: .*Unsupported .*GLOBAL .*[Pp]ath.*Save the state dict alone"
    ) as caught:
        load_model("their_model:build", Path("net.pt"))
    assert str(caught.value).isprintable(), "neither colours nor lines"
    assert "trust" not in str(caught.value), "nobody is told how to run the code"


@pytest.mark.parametrize("content", [b"", b"junk" * 100, b"PK\x03\x04" + bytes(50)])
def test_a_file_that_is_no_checkpoint_is_refused_in_one_line(content: bytes) -> None:
    Path("net.pt").write_bytes(content)
    with pytest.raises(DataError, match=r"net\.pt: cannot be read as plain tensors .*: \w+") as caught:
        load_model("their_model:build", Path("net.pt"))
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(value: float) -> None:
    state = trained()
    state["4.weight"][1, 2] = value
    torch.save(state, "net.pt")
    with pytest.raises(DataError, match=r"net\.pt: tensor '4\.weight' holds 1 values that are NaN or infinite"):
        load_model("their_model:build", Path("net.pt"))


class Trap:
    """Unpickling it would create a file."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("sprung"),)


def test_pickled_code_is_refused_and_never_run() -> None:
    torch.save({"state_dict": trained(), "trap": Trap()}, "net.pt")
    with pytest.raises(DataError, match=r"net\.pt: cannot be read as plain tensors \(pickled code is refused\)"):
        load_model("their_model:build", Path("net.pt"))
    assert not Path("sprung").exists()


def test_damaged_and_foreign_files_are_named() -> None:
    torch.save(trained(), "whole.pt")
    Path("half.pt").write_bytes(Path("whole.pt").read_bytes()[:1000])
    Path("text.pt").write_text("not a checkpoint")
    Path("empty.pt").write_bytes(b"")
    Path("text.safetensors").write_text("not safetensors either")
    torch.save([1, 2], "list.pt")
    torch.save({"a": 3}, "number.pt")
    for name, rule in {
        "half.pt": "cannot be read as plain tensors",
        "text.pt": "cannot be read as plain tensors",
        "empty.pt": "cannot be read as plain tensors",
        "text.safetensors": "not a readable safetensors file",
        "list.pt": "holds a list, not a state dict",
        "number.pt": "entry 'a' is a int, not a tensor",
        "nowhere.pt": "there is no such file",
    }.items():
        with pytest.raises(DataError, match=f"{name}: {rule}"):
            load_model("their_model:build", Path(name))
    with pytest.raises(UsageError, match=r"unknown kind of file '\.onnx'; give \.safetensors, \.pt or \.pth"):
        load_model("their_model:build", Path("net.onnx"))


def test_torchvision_networks_come_with_their_preprocessing() -> None:
    pytest.importorskip("torchvision")
    first, second = load_model("torchvision:squeezenet1_1"), load_model("torchvision:squeezenet1_1")
    assert first.example_shape == (3, 224, 224)
    assert first.preprocessing is not None and (first.preprocessing.resize, first.preprocessing.crop) == (256, 224)
    assert first.preprocessing.mean == pytest.approx((123.675, 116.28, 103.53))
    assert same(first.module.state_dict(), second.module.state_dict()), "random weights are the same at each call"
    with pytest.raises(UsageError, match="no classification network 'resnet81'; did you mean 'resnet18'"):
        load_model("torchvision:resnet81")


def test_a_missing_torch_is_answered_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"needs the package 'torch'; install it with: pip install 'bitplan\[torch\]'"):
        load_model("their_model:build")
