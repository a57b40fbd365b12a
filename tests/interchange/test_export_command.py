"""`optimize export`: what is written, what is said of it, and what cannot be exported."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
torch = pytest.importorskip("torch")

from torch import nn

from bitplan.capture import capture
from bitplan.encodings import encoding_of
from bitplan.kernels import Runtime
from bitplan.kernels.artifact import pack_artifact
from bitplan.model import load_model
from bitplan.network import Add, Input, Linear
from bitplan.policies.policy import LayerPolicy, Policy
from bitplan.policies.policy_file import write_policy
from bitplan.simulate import Simulator
from bitplan.studies.files import StudyFile
from bitplan.variant import FLOAT32, Variant

from ..kernels.networks import covering, make_case, network_of, random_inputs, residual_network
from .conftest import SHAPE, to_onnx

VARIANTS = {"stem": "int8", "dw": "int4", "grouped": "ternary", "join": "binary@u2", "logits": "float32"}


@pytest.fixture
def artifact(folder: Path) -> bytes:
    """In a result folder `out`."""
    rng = np.random.default_rng(0)
    network = residual_network()
    variants = {name: Variant.parse(text) for name, text in VARIANTS.items()}
    (folder / "out").mkdir()
    content = make_case(network, variants, random_inputs(network, 4, rng, np.uint8), rng).artifact
    (folder / "out" / "network.bitplan").write_bytes(content)
    return content


def test_layers_are_kept_as_far_as_onnx_has_them(artifact: bytes, folder: Path, command: Callable[..., Any]) -> None:
    called = command("export", "out", "--json")
    assert called.code == 0
    said = called.json
    assert said["file"] == "out/network.onnx"
    assert said["bytes"] == (folder / "out/network.onnx").stat().st_size
    rows = {layer["name"]: (layer["weights"], layer["dequantised"], layer["activation"]) for layer in said["layers"]}
    assert rows == {
        "stem": ("int8", False, "u8"),
        "dw": ("uint4", False, "u8"),
        "grouped": ("float32", True, "u8"),
        "join": ("float32", True, "u2"),
        "logits": ("float32", False, "f32"),
    }
    assert "2 of 5 layers are float32 in the file, for ONNX has no ternary, binary" in " ".join(called.err.split())
    assert (said["check"]["images"], said["check"]["kind"]) == (100, "random")
    assert said["check"]["difference"] < 0.1
    assert said["check"]["same"] > 0.5
    model = onnx.load(folder / "out/network.onnx")
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    assert types["stem.weight.levels"] == onnx.TensorProto.INT8
    assert types["dw.weight.codes"] == onnx.TensorProto.UINT4
    assert types["grouped.weight"] == onnx.TensorProto.FLOAT
    assert {node.op_type for node in model.graph.node} >= {"QuantizeLinear", "DequantizeLinear", "Conv", "Gemm"}


def test_int4_as_int8_and_another_name(artifact: bytes, folder: Path, command: Callable[..., Any]) -> None:
    called = command("export", "out/network.bitplan", "-o", "net.onnx", "--int4", "int8", "--no-check", "--json")
    assert called.code == 0
    assert [layer["weights"] for layer in called.json["layers"]][:2] == ["int8", "int8"]
    assert called.json["check"] is None
    assert (folder / "net.onnx").exists()
    called = command("export", "out", "--int4", "int16")
    assert called.code == 2
    assert "must be one of packed, int8" in called.err


def test_images_are_compared_where_they_are_given(artifact: bytes, folder: Path, command: Callable[..., Any]) -> None:
    images = np.random.default_rng(1).integers(0, 256, (60, 3, 12, 10), np.uint8)
    np.savez(folder / "images.npz", test_x=images, test_y=np.zeros(60, np.int64), calibration_x=images[:8])
    called = command("export", "out", "--data", "images.npz", "--json")
    assert called.json["check"]["images"] == 60
    assert "on 60 test images: outputs differ by at most" in " ".join(called.err.split())


NOISY = """
import logging, warnings
import numpy as np

def images():
    warnings.warn("the images are odd")
    logging.getLogger("cameras").warning("the lens was dirty")
    print("eight images")
    return np.zeros((8, 3, 12, 10), np.uint8)
"""


@pytest.mark.parametrize("arguments", [("export", "out"), ("run", "out/network.bitplan")])
def test_what_the_users_code_warns_of_is_said_in_json_too(
    artifact: bytes, folder: Path, arguments: tuple[str, str]
) -> None:
    (folder / "noisy_images.py").write_text(NOISY)
    command = [sys.executable, "-m", "bitplan", *arguments, "--data", "noisy_images:images", "--json"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    assert ended.returncode == 0, ended.stderr
    json.loads(ended.stdout)  # and nothing else
    heard = list(map(json.loads, ended.stderr.splitlines()))
    warned = [event["text"] for event in heard if event["event"] == "warning"]
    assert "the lens was dirty" in warned and any("the images are odd" in text for text in warned)
    assert "eight images" in [event["text"] for event in heard if event["event"] == "message"]


def test_nothing_is_written_where_the_images_are_missing(
    artifact: bytes, folder: Path, command: Callable[..., Any]
) -> None:
    assert command("export", "out", "--data", "nowhere.npz").code == 1
    assert not (folder / "out/network.onnx").exists()


def test_an_edited_policy_beside_the_artifact_is_pointed_at(
    artifact: bytes, folder: Path, command: Callable[..., Any]
) -> None:
    layers = tuple(LayerPolicy(name, Variant.parse("int8"), 0) for name in VARIANTS)
    write_policy(folder / "out/policy.json", Policy(layers))
    called = command("export", "out", "--no-check")
    assert called.code == 0
    assert "out/policy.json was edited since" in " ".join(called.err.split())


def test_a_trial_is_exported_by_name(artifact: bytes, folder: Path, command: Callable[..., Any]) -> None:
    trial = folder / "study/trials/0003"
    (trial / "realised").mkdir(parents=True)
    (trial / "policy.json").touch()
    StudyFile("study", "study.db", ("loss",)).save(folder / "study")
    called = command("export", "study#3", "--no-check")
    assert (called.code, "was not carried out yet" in " ".join(called.err.split())) == (2, True), called.err
    (trial / "realised/policy.json").touch()
    (trial / "realised/network.bitplan").write_bytes(artifact)
    assert command("export", "study#3", "--no-check").code == 0
    assert (trial / "realised/network.onnx").exists()


def test_it_needs_no_torch(artifact: bytes, folder: Path) -> None:
    code = "import sys; sys.modules['torch'] = None; sys.argv[1:] = ['export', 'out']; from bitplan.cli import main; main()"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=folder)
    assert ended.returncode == 0, ended.stderr
    assert (folder / "out/network.onnx").exists()


def test_what_is_missing_is_named(
    artifact: bytes, command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "there is no nowhere" in command("export", "nowhere").err
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n, *p: None if n == "onnxruntime" else found(n, *p))
    called = command("export", "out")
    assert called.code == 0
    assert "onnxruntime is not installed; pip install 'bitplan[onnx]'" in " ".join(called.err.split())
    monkeypatch.setattr(importlib.util, "find_spec", lambda n, *p: None if n == "onnx" else found(n, *p))
    called = command("export", "out")
    assert called.code == 2
    assert "pip install 'bitplan[onnx]'" in called.err


def test_layers_of_a_module_are_no_network(folder: Path, command: Callable[..., Any]) -> None:
    rng = np.random.default_rng(0)
    nodes = [(f"x{i}", Input(), (), (6,)) for i in (0, 1)] + [(f"fc{i}", Linear(), (f"x{i}",), (3,)) for i in (0, 1)]
    network = network_of(nodes, ["fc1"])  # as `--hybrid` writes it
    case = make_case(network, {"fc0": FLOAT32, "fc1": FLOAT32}, random_inputs(network, 2, rng), rng)
    (folder / "layers.bitplan").write_bytes(case.artifact)
    called = command("export", "layers.bitplan")
    assert called.code == 1
    assert "layers of a torch module (--hybrid)" in called.err


def test_networks_with_several_inputs_are_written(folder: Path, command: Callable[..., Any]) -> None:
    rng = np.random.default_rng(0)
    nodes = [("a", Input(), (), (6,)), ("b", Input(), (), (6,)), ("sum", Add(), ("a", "b"), (6,))]
    network = network_of([*nodes, ("fc", Linear(), ("sum",), (3,))], ["fc"])
    inputs = random_inputs(network, 2, rng)
    case = make_case(network, {"fc": Variant("int8")}, inputs, rng)
    (folder / "two.bitplan").write_bytes(case.artifact)
    called = command("export", "two.bitplan", "--json")
    assert called.code == 0
    assert called.json["check"] is None
    assert "not compared with our runtime: it has the inputs a, b" in " ".join(called.err.split())
    found = ort.InferenceSession("network.onnx", providers=["CPUExecutionProvider"]).run(None, inputs)[0]
    np.testing.assert_allclose(found, Runtime.from_bytes(case.artifact)(inputs)["fc"], atol=0.05)


def test_damaged_artifacts_are_refused(artifact: bytes, folder: Path, command: Callable[..., Any]) -> None:
    (folder / "short.bitplan").write_bytes(artifact[:-9])
    called = command("export", "short.bitplan")
    assert called.code == 1
    assert not (folder / "network.onnx").exists()


def test_a_float_network_comes_back_as_it_was(network: nn.Module, folder: Path, command: Callable[..., Any]) -> None:
    """Module to artifact to ONNX to module: the same outputs and layers."""
    x = torch.randn(4, *SHAPE)
    captured, weights = capture(network, x)
    layers = {}
    for node in captured.layers:
        weight, bias = weights[f"{node.name}.weight"], weights[f"{node.name}.bias"]
        weight = weight if weight.ndim == 4 else weight[:, :, None, None]
        groups = captured.weight_shape(node).groups
        layers[node.name] = encoding_of(FLOAT32).quantise(weight, bias, FLOAT32, groups)
    (folder / "network.bitplan").write_bytes(pack_artifact(captured, weights, layers, {}))
    assert command("export", "network.bitplan").code == 0
    again = load_model("network.onnx")
    assert again.example_shape == SHAPE
    torch.testing.assert_close(again.module(x), network(x), rtol=1e-3, atol=1e-4)
    twice, weights = capture(again.module, x)
    assert [type(node.op) for node in twice.layers] == [type(node.op) for node in captured.layers]
    torch.testing.assert_close(Simulator(twice, weights).outputs(x)[twice.outputs[0]], network(x), rtol=1e-3, atol=1e-4)


def test_the_example_goes_all_the_way_round(folder: Path, command: Callable[..., Any]) -> None:
    """Module to ONNX file to network to quantised artifact to ONNX file: as accurate as it was."""
    from bitplan.example import PREPROCESSING, example_data, example_module

    data = example_data()
    to_onnx(example_module(), folder / "net.onnx", shape=(1, 28, 28))
    module = load_model("net.onnx").module
    network, weights = capture(module, torch.zeros(2, 1, 28, 28), preprocessing=PREPROCESSING)
    values = Simulator(network, weights).values(data.calibration_x[:64])
    ranges = {name: covering(min(float(x.min()), 0.0), float(x.max())) for name, x in values.items()}
    layers = {}
    for place, node in enumerate(network.layers):
        variant = Variant(("int8", "int4", "int8", "int3")[place % 4])
        weight = weights[f"{node.name}.weight"]
        weight = weight if weight.ndim == 4 else weight[:, :, None, None]
        layers[node.name] = encoding_of(variant).quantise(weight, weights[f"{node.name}.bias"], variant)
    (folder / "network.bitplan").write_bytes(pack_artifact(network, weights, layers, ranges, planned_batch=100))
    np.savez("images.npz", x=data.test_x[:200], y=data.test_y[:200])
    called = command("export", "network.bitplan", "-o", "out.onnx", "--data", "images.npz", "--json")
    assert called.json["check"]["agreement"] > 0.98
    images = data.test_x[:200].astype(np.float32)
    session = ort.InferenceSession("out.onnx", providers=["CPUExecutionProvider"])
    found = session.run(None, {session.get_inputs()[0].name: images})[0].argmax(1)
    expected = example_module()((torch.from_numpy(images) - 72.94) / 90.02).argmax(1).numpy()
    assert (found == expected).mean() > 0.97
