"""Networks that come as a file of another tool, made torch modules: archives of `torch.export` and ONNX."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from bitplan.errors import DataError, UnsupportedError

if TYPE_CHECKING:
    from torch import nn

SUFFIXES = (".pt2", ".onnx")
NO_GRAPH = SimpleNamespace(nodes=())
SHOWN = 5


def is_model_file(spec: str) -> bool:
    """Whether what `--model` names is a file of these kinds (and not a function)."""
    return Path(spec).suffix.lower() in SUFFIXES


def named_in_file(error: UnsupportedError, module: nn.Module) -> UnsupportedError:
    """What capture refuses of an imported module, with the nodes of the file that it may be."""
    operation = str(error).partition(" in ")[0]
    found = [node.meta["source"] for node in getattr(module, "graph", NO_GRAPH).nodes if _computes(node, operation)]
    if not found:
        return error
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return UnsupportedError(f"{error} (in the file: {', '.join(found[:SHOWN])}{more})")


def _computes(node: Any, operation: str) -> bool:
    name = getattr(node.target, "__name__", "").partition(".")[0]
    return "source" in node.meta and operation in (name, *(a for a in node.args if isinstance(a, str)))


def load_model_file(path: Path) -> tuple[nn.Module, dict[str, Any]]:
    """The network of an archive or ONNX file as a torch module that takes any batch size, and what the file says of it:
    `input_shape` (batch left out) of a network with one input of fixed size. Its outputs have been compared with those
    of the file. Nothing of the file is unpickled or executed but tensor operations.

    Raises DataError where there is no such file, FileFormatError for one that is damaged or of another kind,
    UnsupportedError, naming node and operation, for what has no counterpart in torch."""
    if not path.is_file():
        raise DataError(f"model {path}: there is no such file")
    if path.suffix.lower() == ".pt2":
        from bitplan.model_files.torch_archive import load_archive

        return load_archive(path)
    from bitplan.model_files.onnx_model import load_onnx

    return load_onnx(path)
