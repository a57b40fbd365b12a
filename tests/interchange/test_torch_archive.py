"""Archives of torch.export: the same network as its module, whatever the batch; nothing of them is executed."""

from __future__ import annotations

import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import nn

from bitplan.capture import capture
from bitplan.config import Config
from bitplan.errors import DataError, FileFormatError, UnsupportedError, UsageError
from bitplan.model import load_model
from bitplan.progress import Reporter
from bitplan.simulate import Simulator
from bitplan.trained import load_trained

from .conftest import SHAPE, to_archive


@pytest.fixture(scope="module")
def archive(network: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return to_archive(network, tmp_path_factory.mktemp("archive") / "net.pt2")


class Evil:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def rewritten(source: Path, target: Path, change: Callable[[str, bytes], bytes | None]) -> Path:
    """The archive with its records as `change` (name, content) gives them; None drops one."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content = change(name.partition("/")[2], old.read(name))
            if content is not None:
                new.writestr(name, content)
    return target


@pytest.mark.parametrize("batch", [None, 1, 3])
def test_the_network_is_that_of_the_module(network: nn.Module, tmp_path: Path, batch: int | None) -> None:
    path = to_archive(network, tmp_path / "net.pt2", batch)
    loaded = load_model(str(path))
    assert loaded.example_shape == SHAPE
    x = torch.randn(5, *SHAPE)
    torch.testing.assert_close(loaded.module(x), network(x))
    ours, weights = capture(loaded.module, x)
    theirs, _ = capture(network, x)
    assert [node.name for node in ours.layers] == [node.name for node in theirs.layers]
    output = Simulator(ours, weights).outputs(x)["head.2"]
    # The oracle: the archive as torch itself loads and runs it.
    source = torch.export.load(path).module()
    expected = torch.cat([source(part) for part in torch.split(x[:3], batch or 3)])
    torch.testing.assert_close(output[:3], expected, rtol=1e-4, atol=1e-4)


def test_a_job_takes_it_in_place_of_a_function(archive: Path, folder: Path) -> None:
    import numpy as np

    images = np.random.default_rng(0).integers(0, 256, (40, *SHAPE), np.uint8)
    np.savez("images.npz", x=images, y=np.arange(40) % 5)
    trained = load_trained(
        Config(model=str(archive), data="images.npz", mean=(99,) * 3, std=(50,) * 3), Reporter(quiet=True)
    )
    assert trained.network.layers[0].name == "stem.0"
    with pytest.raises(UsageError, match="brings its weights"):
        load_model(str(archive), Path("weights.pt"))


def test_pickles_in_it_are_never_loaded(archive: Path, tmp_path: Path) -> None:
    made = tmp_path / "made"

    def evil_inputs(name: str, content: bytes) -> bytes:
        return pickle.dumps(Evil(made)) if name.startswith("data/sample_inputs/") else content

    path = rewritten(archive, tmp_path / "inputs.pt2", evil_inputs)
    load_model(str(path))  # nobody needs the sample inputs

    def evil_weight(name: str, content: bytes) -> bytes:
        if name == "data/weights/weight_0":
            return pickle.dumps(Evil(made))
        if name == "data/weights/model_weights_config.json":
            config = json.loads(content)
            next(iter(config["config"].values()))["use_pickle"] = True
            return json.dumps(config).encode()
        return content

    with pytest.raises(UnsupportedError, match="stored as a pickle"):
        load_model(str(rewritten(archive, tmp_path / "weight.pt2", evil_weight)))

    def older_evil(name: str, content: bytes) -> bytes | None:
        if name == "data/weights/model_weights_config.json":
            return None
        return content

    path = rewritten(archive, tmp_path / "older.pt2", older_evil)
    buffer = io.BytesIO()
    torch.save({"stem.0.weight": Evil(made)}, buffer)
    with zipfile.ZipFile(path, "a") as file:
        file.writestr(file.namelist()[0].split("/")[0] + "/data/weights/model.pt", buffer.getvalue())
    with pytest.raises(UnsupportedError, match="pickle of more than tensors"):
        load_model(str(path))
    assert not made.exists()
    with pytest.raises(FileExistsError):  # the trap works
        made.mkdir()
        pickle.loads(pickle.dumps(Evil(made)))


@pytest.mark.parametrize("target", ["torch.os.mkdir", "_operator.attrgetter", "torch.ops.aten.from_file.default"])
def test_texts_in_it_are_never_evaluated(archive: Path, tmp_path: Path, target: str) -> None:
    made = tmp_path / "made"

    def change(name: str, content: bytes) -> bytes:
        if name != "models/model.json":
            return content
        program = json.loads(content)
        code = f"__import__('os').mkdir({str(made)!r})"
        program["guards_code"] = [code]
        program["range_constraints"] = {code: {"min_val": 0, "max_val": None}}
        graph = program["graph_module"]["graph"]
        graph["sym_int_values"] = {"s": {"as_expr": {"expr_str": code, "hint": None}}}
        node = graph["nodes"][0]
        node["target"] = target
        node["inputs"].insert(0, {"name": "path", "arg": {"as_string": str(made)}, "kind": 1})
        return json.dumps(program).encode()

    with pytest.raises(UnsupportedError, match=r"not supported"):
        load_model(str(rewritten(archive, tmp_path / "evil.pt2", change)))
    assert not made.exists()


@pytest.mark.parametrize("place", ["parameter", "argument", "input"])
def test_names_in_it_do_not_become_code(archive: Path, tmp_path: Path, place: str) -> None:
    """torch.fx writes names of parameters and arguments into Python code."""
    made = tmp_path / "made"
    code = f'__import__("os").mkdir({str(made)!r})'

    def change(name: str, content: bytes) -> bytes:
        text = content.decode("latin1")
        if place == "parameter":
            return text.replace(
                "stem.0.weight", f'stem.0.weight\\"), {code.replace(chr(34), chr(92) + chr(34))}, (\\"'
            ).encode("latin1")
        if name != "models/model.json":
            return content
        program = json.loads(content)
        graph, signature = program["graph_module"]["graph"], program["graph_module"]["signature"]
        if place == "argument":
            node = next(node for node in graph["nodes"] if node["target"] == "torch.ops.aten.silu.default")
            node["inputs"].append({"name": f"out={code}, x", "arg": {"as_int": 1}, "kind": 2})
        else:
            given = next(spec["user_input"] for spec in signature["input_specs"] if "user_input" in spec)
            given["arg"]["as_tensor"]["name"] = f"x={code}"
            graph["tensor_values"][f"x={code}"] = graph["tensor_values"]["x"]
        return json.dumps(program).encode()

    with pytest.raises((FileFormatError, UnsupportedError), match="no name"):
        load_model(str(rewritten(archive, tmp_path / "evil.pt2", change)))
    assert not made.exists()


def test_older_archives_with_plain_state_dicts_are_read(network: nn.Module, archive: Path, tmp_path: Path) -> None:
    path = rewritten(
        archive, tmp_path / "older.pt2", lambda n, c: None if n.endswith("model_weights_config.json") else c
    )
    buffer = io.BytesIO()
    torch.save(network.state_dict(), buffer)
    with zipfile.ZipFile(path, "a") as file:
        file.writestr(file.namelist()[0].split("/")[0] + "/data/weights/model.pt", buffer.getvalue())
    x = torch.randn(3, *SHAPE)
    torch.testing.assert_close(load_model(str(path)).module(x), network(x))


class Counts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 3)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls.add_(1)
        return self.conv(x)


class Mixes(nn.Module):
    """Images of a batch meet."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x - x.mean(0, keepdim=True)).mean((2, 3))


def test_what_cannot_be_taken_over_is_named(tmp_path: Path) -> None:
    path = tmp_path / "net.pt2"
    program = torch.export.export(Counts().eval(), (torch.randn(2, *SHAPE),))
    torch.export.save(program.run_decompositions({}), path)
    with pytest.raises(UnsupportedError, match=r"net\.pt2: the network returns or changes .*calls.*module\.eval"):
        load_model(str(path))
    to_archive(Mixes(), path, batch=2)
    with pytest.raises(UnsupportedError, match=r"differs by .*export it with a dynamic batch"):
        load_model(str(path))


def test_other_files_are_refused(archive: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        load_model(str(tmp_path / "none.pt2"))
    path = tmp_path / "text.pt2"
    path.write_text("hello")
    with pytest.raises(FileFormatError, match=r"text\.pt2 is not a torch\.export archive.*torch\.export\.save"):
        load_model(str(path))
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a/data.pkl", b"")
    with pytest.raises(FileFormatError, match=r"zip file, but not a torch\.export archive"):
        load_model(str(path))
    rewritten(archive, path, lambda name, content: content[:-8] if name == "data/weights/weight_0" else content)
    with pytest.raises(FileFormatError, match="cannot be read"):
        load_model(str(path))

    def newer(name: str, content: bytes) -> bytes:
        return content.replace(b'"major": 8', b'"major": 9') if name == "models/model.json" else content

    with pytest.raises(UnsupportedError, match="schema version 9; known is 8"):
        load_model(str(rewritten(archive, path, newer)))
