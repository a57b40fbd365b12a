"""Weights files, .safetensors or .pt/.pth with plain tensors; nothing in them is ever executed."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitplan.errors import DataError, UsageError

if TYPE_CHECKING:
    from torch import Tensor, nn

WRAPPERS = ("state_dict", "model_state_dict", "model")
"""Keys under which checkpoints keep the state dict."""
SHOWN = 8
COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
REFUSAL = re.compile(r"WeightsUnpickler error: (.+?)(?:\. Please|$)", re.MULTILINE)
"""What torch.load's long text, which first of all tells how to run the file's code, refuses."""


def load_weights(module: nn.Module, path: Path) -> None:
    """Copies the tensors of a file into the module, all of them by name and shape; only batch norms' counters
    (`num_batches_tracked`) may be missing. Raises UsageError for another kind of file, DataError for a damaged file
    or tensors that do not fit, listing them."""
    state = read_weights(path)
    own = module.state_dict()
    missing = [name for name in own if name not in state and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in state if name not in own]
    shapes = [
        f"{name} {list(state[name].shape)} instead of {list(own[name].shape)}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    problems = [
        f"{title}: {', '.join(names[:SHOWN])}{f' and {len(names) - SHOWN} more' if len(names) > SHOWN else ''}"
        for title, names in (
            ("missing in the file", missing),
            ("unknown to the model", unexpected),
            ("of another shape", shapes),
        )
        if names
    ]
    if problems:
        raise DataError(f"{path} does not fit the model; {'; '.join(problems)}. Is it the file of this architecture?")
    module.load_state_dict(state, strict=False)


def read_weights(path: Path) -> dict[str, Tensor]:
    """The named tensors of a file; wrappers such as {'state_dict': ...} and the prefix `module.` of data-parallel
    training are taken off. Raises UsageError and DataError."""
    if path.suffix not in (".safetensors", ".pt", ".pth"):
        raise UsageError(f"weights {path}: unknown kind of file {path.suffix!r}; give .safetensors, .pt or .pth")
    if not path.is_file():
        raise DataError(f"weights {path}: there is no such file; name an existing one with --weights")
    content = _safetensors(path) if path.suffix == ".safetensors" else _checkpoint(path)
    if all(name.startswith("module.") for name in content):
        content = {name.removeprefix("module."): tensor for name, tensor in content.items()}
    return content


def _safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise DataError(
            f"weights {path}: not a readable safetensors file: {error}; save it anew, or copy it again"
        ) from None


def _checkpoint(path: Path) -> dict[str, Tensor]:
    import torch

    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise DataError(
            f"weights {path}: cannot be read as plain tensors (pickled code is refused): {_reason(error)}. "
            "Save the state dict alone: torch.save(model.state_dict(), path)"
        ) from None
    for key in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping) or not content:
        raise DataError(
            f"weights {path}: holds a {type(content).__name__}, not a state dict of named tensors"
            "; save torch.save(model.state_dict(), path)"
        )
    for name, tensor in content.items():
        if not isinstance(tensor, torch.Tensor):
            raise DataError(f"weights {path}: entry {name!r} is a {type(tensor).__name__}, not a tensor")
    return {str(name): tensor for name, tensor in content.items()}


def _reason(error: Exception) -> str:
    """What is wrong, in one line of plain text."""
    text = COLOURS.sub("", str(error)).strip()
    refusal = REFUSAL.search(text)
    line = refusal[1] if refusal else next(iter(text.splitlines()), "")
    return f"{type(error).__name__}: {line}".rstrip(" .:")


def check_finite(module: nn.Module, source: str) -> None:
    """Raises DataError, naming the tensor, where a parameter or buffer holds NaN or infinity."""
    for name, tensor in module.state_dict().items():
        bad = int((~tensor.isfinite()).sum()) if tensor.is_floating_point() else 0
        if bad:
            raise DataError(
                f"{source}: tensor {name!r} holds {bad} values that are NaN or infinite; retrain or repair it"
            )
