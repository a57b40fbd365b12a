"""A `torch.export` archive (.pt2), read without `torch.export.load`, which unpickles and executes what is in the file.

What we read are the JSON of graph and weights and the weights' raw bytes. Archives of torch before 2.9 hold pickled state
dicts instead; those are read as plain tensors only.
"""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx

from bitplan.errors import FileFormatError, UnsupportedError
from bitplan.model_files.archive_graph import Graph
from bitplan.model_files.aten_module import build_module
from bitplan.model_files.same_outputs import same_as_slices
from bitplan.model_files.torch_numbers import dtype_of

SCHEMA = 8
"""The major version of the graph's schema that we know; minor ones add to it."""
EXPORT_AGAIN = (
    "write it again with torch 2.9 or newer: torch.export.save(torch.export.export(module.eval(), (x,), "
    'dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)), "net.pt2")'
)


def load_archive(path: Path) -> tuple[fx.GraphModule, dict[str, Any]]:
    """See `load_model_file`."""
    try:
        with zipfile.ZipFile(path) as file:
            archive = Archive(path, file)
            program = archive.json("models/model.json")
            version = program["schema_version"]["major"]
            if version != SCHEMA:
                raise UnsupportedError(
                    f"{path}: its graph has schema version {version}; known is {SCHEMA}; {EXPORT_AGAIN}"
                )
            tensors = archive.payload("weights") | archive.payload("constants")
            return _checked(Graph(path, program["graph_module"], tensors))
    except zipfile.BadZipFile as error:
        raise FileFormatError(f"{path} is not a torch.export archive ({error}); {EXPORT_AGAIN}") from None
    except (KeyError, TypeError, ValueError, AttributeError, UnicodeDecodeError, RuntimeError) as error:
        raise FileFormatError(
            f"{path}: the archive cannot be read ({type(error).__name__}: {error}); {EXPORT_AGAIN}"
        ) from error


def _checked(graph: Graph) -> tuple[fx.GraphModule, dict[str, Any]]:
    """The module; where the archive fixes the batch, compared with what it is for that batch."""
    module = build_module(graph)
    batch, shape = graph.input_size()
    if batch is not None and shape is not None:
        same_as_slices(module, build_module(graph, free_batch=False), batch, shape, str(graph.path))
    return module, {} if shape is None else {"input_shape": shape}


class Archive:
    """The records of an archive, which lie in one folder named after the file that was saved first."""

    def __init__(self, path: Path, file: zipfile.ZipFile) -> None:
        """Raises FileFormatError for a zip file that is no such archive, UnsupportedError for compiled ones."""
        self.path, self.file = path, file
        names = file.namelist()
        self.root = names[0].split("/")[0] + "/" if names else ""
        self.names = {name.removeprefix(self.root) for name in names}
        if "archive_format" not in self.names or self._read("archive_format") != b"pt2":
            raise FileFormatError(f"{path} is a zip file, but not a torch.export archive; {EXPORT_AGAIN}")
        if "byteorder" in self.names and self._read("byteorder") != b"little":
            raise UnsupportedError(f"{path} was written on a big-endian machine; {EXPORT_AGAIN}")
        if "models/model.json" not in self.names:
            raise UnsupportedError(
                f"{path} holds no exported program named 'model' (compiled by AOTInductor, perhaps); {EXPORT_AGAIN}"
            )

    def json(self, name: str) -> Any:
        return json.loads(self._read(name))

    def payload(self, kind: str) -> dict[str, Tensor]:
        """The named tensors of data/weights or data/constants."""
        older = f"data/{kind}/model.pt"
        if older in self.names:
            return self._plain_tensors(older)
        config = self.json(f"data/{kind}/model_{kind}_config.json")["config"]
        records: dict[str, bytearray] = {}
        tensors = {}
        for name, entry in config.items():
            if entry["use_pickle"] or entry["tensor_meta"] is None:
                raise UnsupportedError(
                    f"{self.path}: {name!r} is stored as a pickle (a tensor subclass or an object), which is not loaded; "
                    "export the module with plain float32 tensors"
                )
            record = f"data/{kind}/{entry['path_name']}"
            if record not in records:
                records[record] = bytearray(self._read(record))
            tensors[name] = _tensor(records[record], entry["tensor_meta"])
        return tensors

    def _plain_tensors(self, name: str) -> dict[str, Tensor]:
        try:
            content = torch.load(io.BytesIO(self._read(name)), map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UnsupportedError(
                f"{self.path}: {name} is a pickle of more than tensors ({reason}); {EXPORT_AGAIN}"
            ) from None
        return {key: value.detach() for key, value in content.items() if isinstance(value, Tensor)}

    def _read(self, name: str) -> bytes:
        return self.file.read(self.root + name)


def _tensor(data: bytearray, meta: Mapping[str, Any]) -> Tensor:
    """A tensor on the bytes of its record; torch refuses sizes and strides that reach beyond them."""
    dtype = dtype_of(meta["dtype"])
    size, stride = ([int(number["as_int"]) for number in meta[key]] for key in ("sizes", "strides"))
    if not data:
        return torch.empty(size, dtype=dtype)
    flat = torch.frombuffer(data, dtype=dtype)
    return torch.as_strided(flat, size, stride, int(meta["storage_offset"]["as_int"])).clone()
