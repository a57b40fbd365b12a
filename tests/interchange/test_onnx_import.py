"""ONNX files: the same network as ONNX Runtime executes, by names that tell where it came from."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper, numpy_helper
from torch import nn

import bitplan
from bitplan.capture import capture
from bitplan.config import Config
from bitplan.errors import DataError, FileFormatError, UnsupportedError, UsageError
from bitplan.model import load_model
from bitplan.progress import Reporter
from bitplan.simulate import Simulator
from bitplan.trained import load_trained

from .conftest import SHAPE, to_onnx

RECORDED = Path(__file__).with_name("exported.onnx")


@pytest.mark.parametrize(("batch", "opset"), [(None, 0), (None, 11), (3, 17)])
def test_the_network_is_that_of_the_module(network: nn.Module, tmp_path: Path, batch: int | None, opset: int) -> None:
    path = to_onnx(network, tmp_path / "net.onnx", batch, opset) if opset else RECORDED
    loaded = load_model(str(path))
    assert loaded.example_shape == SHAPE
    x = torch.randn(6, *SHAPE)
    ours, weights = capture(loaded.module, x)
    theirs, _ = capture(network, x)
    assert [node.name for node in ours.layers] == [node.name for node in theirs.layers]
    assert [type(node.op) for node in ours] == [type(node.op) for node in theirs]
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    expected = np.concatenate([session.run(None, {name: part.numpy()})[0] for part in torch.split(x, batch or 6)])
    np.testing.assert_allclose(Simulator(ours, weights).outputs(x)["head.2"].numpy(), expected, rtol=1e-3, atol=1e-4)
    if opset:
        torch.testing.assert_close(loaded.module(x), network(x), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(copy.deepcopy(loaded.module)(x), loaded.module(x))


def test_a_job_takes_it_in_place_of_a_function(network: nn.Module, folder: Path) -> None:
    to_onnx(network, folder / "net.onnx")
    images = np.random.default_rng(0).integers(0, 256, (40, *SHAPE), np.uint8)
    np.savez("images.npz", x=images, y=np.arange(40) % 5)
    config = Config(model="net.onnx", data="images.npz", mean=(99,) * 3, std=(50,) * 3)
    trained = load_trained(config, Reporter(quiet=True))
    expected = network((torch.from_numpy(images[:4]).float() - 99) / 50)
    found = Simulator(trained.network, trained.weights).outputs(images[:4])["head.2"]
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def written(
    path: Path,
    nodes: Sequence[Any],
    opset: int,
    constants: dict[str, Any] | None = None,
    shape: Sequence[int | str] = ("N", 4, 9, 8),
    kind: int = TensorProto.FLOAT,
    domain: str = "",
) -> Path:
    """A file of these nodes from `x` to `y`."""
    graph = helper.make_graph(
        list(nodes),
        "test",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()],
    )
    opsets = [helper.make_opsetid("", opset)] + ([helper.make_opsetid(domain, 1)] if domain else [])
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    if opset < 200:
        model = onnx.shape_inference.infer_shapes(model)  # the rank of y
    if not model.graph.output[0].type.tensor_type.HasField("shape"):
        model.graph.output[0].type.tensor_type.shape.dim.add()
    onnx.save(model, path)
    return path


RANDOM = np.random.default_rng(0)
WEIGHT = RANDOM.normal(size=(6, 4, 3, 3)).astype(np.float32)
MATRIX = RANDOM.normal(size=(288, 5)).astype(np.float32)
CHANNELS = {name: RANDOM.uniform(0.5, 2, 4).astype(np.float32) for name in ("scale", "shift", "mean", "variance")}


def node(kind: str, *more: str, **attributes: Any) -> Any:
    return helper.make_node(kind, ["x", *more], ["y"], **attributes)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


OPERATIONS: list[tuple[int, Any, dict[str, Any]]] = [
    (7, node("Conv", "w", auto_pad="SAME_UPPER", strides=[2, 2]), {"w": WEIGHT}),
    (11, node("Conv", "w", "b", pads=[0, 1, 2, 1]), {"w": WEIGHT, "b": RANDOM.normal(size=6).astype(np.float32)}),
    (13, node("Conv", "w", auto_pad="SAME_LOWER", strides=[1, 2]), {"w": WEIGHT}),
    (9, node("BatchNormalization", "scale", "shift", "mean", "variance", epsilon=1e-3), CHANNELS),
    (7, node("MaxPool", kernel_shape=[3, 2], strides=[2, 2], pads=[1, 0, 0, 1]), {}),
    (10, node("MaxPool", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1), {}),
    (11, node("AveragePool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]), {}),
    (19, node("AveragePool", kernel_shape=[2, 3], pads=[0, 1, 1, 1], count_include_pad=1), {}),
    (7, node("GlobalAveragePool"), {}),
    (13, node("ReduceMean", axes=[2, 3], keepdims=0), {}),
    (18, node("ReduceMean", "axes", keepdims=1), {"axes": ints(-1, -2)}),
    (18, node("ReduceMax", "axes", keepdims=0), {"axes": ints(2, 3)}),
    (7, node("Clip", min=-0.5, max=0.75), {}),
    (13, node("Clip", "", "high"), {"high": np.float32(0.5)}),
    (13, node("Clip", "low"), {"low": np.float32(0)}),
    (7, node("Softmax", axis=1), {}),
    (13, node("Softmax", axis=1), {}),
    (13, node("HardSigmoid"), {}),
    (14, node("HardSwish"), {}),
    (7, node("LeakyRelu", alpha=0.2), {}),
    (7, node("PRelu", "slope"), {"slope": RANDOM.normal(size=(4, 1, 1)).astype(np.float32)}),
    (20, node("Gelu", approximate="tanh"), {}),
    (7, node("Mul", "c"), {"c": RANDOM.normal(size=(4, 1, 1)).astype(np.float32)}),
    (7, node("Sub", "c"), {"c": np.float32(0.5)}),
    (7, node("Flatten"), {}),
    (7, node("Transpose", perm=[0, 2, 3, 1]), {}),
    (7, node("Pad", pads=[0, 0, 1, 2, 0, 0, 0, 1], value=0.5), {}),
    (13, node("Pad", "pads", mode="reflect"), {"pads": ints(0, 0, 1, 2, 0, 0, 2, 1)}),
    (9, node("Slice", starts=[1, 0], ends=[3, 100], axes=[1, 3]), {}),
    (13, node("Slice", "s", "e", "a", "t"), {"s": ints(0, 1), "e": ints(2**31, -1), "a": ints(2, 3), "t": ints(2, 1)}),
    (13, node("Gather", "i", axis=1), {"i": ints(2, 0, 3)}),
    (13, node("Gather", "i", axis=1), {"i": np.array(1, np.int64)}),
    (11, node("Unsqueeze", axes=[2]), {}),
    (13, node("Unsqueeze", "a"), {"a": ints(2, 5)}),
    (13, node("Reshape", "r"), {"r": ints(0, 2, -1, 8)}),
    (13, node("Expand", "r"), {"r": ints(1, 4, 9, 8)}),
    (13, node("DepthToSpace", blocksize=2, mode="DCR"), {}),
    (13, node("DepthToSpace", blocksize=2, mode="CRD"), {}),
]


@pytest.mark.parametrize(("opset", "operation", "constants"), OPERATIONS)
def test_operations(tmp_path: Path, opset: int, operation: Any, constants: dict[str, Any]) -> None:
    path = written(tmp_path / "net.onnx", [operation], opset, constants)
    x = torch.randn(3, 4, 9, 8, generator=torch.Generator().manual_seed(1))
    expected = ort.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"x": x.numpy()})[0]
    found = load_model(str(path)).module(x)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4, atol=1e-5)


def test_gemm_split_and_sizes_from_shapes(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "zero"], ["batch"]),
        helper.make_node("Unsqueeze", ["batch"], ["first"], axes=[0]),
        helper.make_node("Concat", ["first", "rest"], ["sizes"], axis=0),
        helper.make_node("Reshape", ["x", "sizes"], ["rows"]),
        helper.make_node("Gemm", ["rows", "w", "b"], ["scores"], alpha=0.5, beta=2.0),
        helper.make_node("Split", ["scores"], ["left", "right"], axis=1, split=[2, 3]),
        helper.make_node("Concat", ["right", "left"], ["y"], axis=1),
    ]
    bias = RANDOM.normal(size=(1, 5)).astype(np.float32)
    constants = {"zero": np.array(0, np.int64), "rest": ints(-1), "w": MATRIX, "b": bias}
    path = written(tmp_path / "net.onnx", nodes, 11, constants)
    x = torch.randn(7, 4, 9, 8)
    scores = 0.5 * x.flatten(1).numpy() @ MATRIX + 2 * bias
    expected = np.concatenate([scores[:, 2:], scores[:, :2]], 1)
    np.testing.assert_allclose(load_model(str(path)).module(x).numpy(), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("changed", "error", "text"),
    [
        (
            {"nodes": [node("Sin", name="/neck/Sin")]},
            UnsupportedError,
            r"net\.onnx: Sin \(node '/neck/Sin', opset 13\): is not",
        ),
        (
            {"nodes": [node("QuantizeLinear", "s")], "constants": {"s": np.float32(1)}},
            UnsupportedError,
            "float32 network",
        ),
        ({"nodes": [node("Own", domain="mine")], "domain": "mine"}, UnsupportedError, "belongs to mine"),
        (
            {"nodes": [node("Conv", "w")], "constants": {"w": WEIGHT[..., 0]}, "shape": ("N", 4, 9)},
            UnsupportedError,
            "2-d",
        ),
        ({"nodes": [node("Relu")], "opset": 6}, UnsupportedError, "opset 6; read are 7 to .*convert_version"),
        ({"nodes": [node("Relu")], "opset": 200}, UnsupportedError, "opset 200.*install a newer onnx"),
        ({"nodes": [node("Cast", to=1)], "kind": TensorProto.UINT8}, UnsupportedError, "'x' is uint8, not float32"),
        ({"nodes": [node("Relu")], "shape": ("N",)}, UnsupportedError, "has 1 axes"),
        (
            {
                "nodes": [node("Slice", "s", "e", "a", "t")],
                "constants": {k: ints(v) for k, v in zip("seat", (-1, 0, 2, -1), strict=True)},
            },
            UnsupportedError,
            "Slice .*walks backwards",
        ),
    ],
)
def test_what_cannot_be_taken_over_is_named(
    tmp_path: Path, changed: dict[str, Any], error: type[Exception], text: str
) -> None:
    path = written(tmp_path / "net.onnx", **{"opset": 13, **changed})
    with pytest.raises(error, match=text):
        load_model(str(path))


def test_damaged_files_and_missing_weights(network: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    with pytest.raises(DataError, match="no such file"):
        load_model(str(path))
    path.write_bytes(b"hello, world")
    with pytest.raises(FileFormatError, match=r"net\.onnx is not"):
        load_model(str(path))
    model = onnx.load(written(path, [node("Conv", "w")], 13, {"w": WEIGHT}))
    onnx.save(model, path, save_as_external_data=True, location="net.weights", size_threshold=0)
    assert load_model(str(path)).example_shape == (4, 9, 8)
    (tmp_path / "net.weights").unlink()
    with pytest.raises(DataError, match=r"net\.onnx.*copy it beside the model"):
        load_model(str(path))


def test_without_the_package_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    path = written(tmp_path / "net.onnx", [node("Relu")], 13)
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnx" else found(name))
    with pytest.raises(UsageError, match=r"needs the package 'onnx'.*bitplan\[onnx\]"):
        load_model(str(path))


def test_from_python_a_path_names_it_too(network: nn.Module, folder: Path) -> None:
    to_onnx(network, folder / "net.onnx")
    images = np.zeros((20, 4, 16, 16), np.uint8)
    with pytest.raises(DataError, match=r"\[4, 16, 16\]|\(4, 16, 16\)"):  # the file says three channels
        bitplan.plan(Path("net.onnx"), (images, None), size="10kB", quiet=True)
    with pytest.raises(UsageError, match="options of plan"):
        bitplan.plan(Path("net.onnx"), (images, None), size="10kB", info={"mean": 3}, quiet=True)


def test_sizes_of_images_may_be_those_of_the_data(tmp_path: Path) -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"]), helper.make_node("GlobalAveragePool", ["c"], ["y"])]
    path = written(tmp_path / "net.onnx", nodes, 13, {"w": WEIGHT}, ("N", 4, "H", "W"))
    loaded = load_model(str(path))
    assert loaded.example_shape is None
    assert loaded.module(torch.zeros(3, 4, 20, 11)).shape == (3, 6, 1, 1)


def test_what_capture_refuses_is_found_in_the_file(folder: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="/stem/Conv"),
        helper.make_node("Gelu", ["c"], ["g"], name="/stem/Gelu"),
        helper.make_node("GlobalAveragePool", ["g"], ["p"]),
        helper.make_node("Flatten", ["p"], ["y"]),
    ]
    written(folder / "net.onnx", nodes, 20, {"w": WEIGHT})
    np.savez("images.npz", x=np.zeros((20, 4, 9, 8), np.float32))
    with pytest.raises(UnsupportedError, match=r"gelu .*train with SiLU.*\(in the file: Gelu /stem/Gelu\)"):
        load_trained(Config(model="net.onnx", data="images.npz"), Reporter(quiet=True))
