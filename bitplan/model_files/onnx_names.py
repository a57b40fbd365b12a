"""Names of an ONNX file as names that modules and arguments can have."""

from __future__ import annotations

import re
from keyword import iskeyword

import onnx
from torch import nn


def layer_path(node: onnx.NodeProto) -> str:
    """The module path of a layer, as exporters of torch leave it: in the name of its weight (`blocks.0.conv1.weight`),
    else in its own (`/blocks/blocks.0/conv1/Conv`); else its own as it is."""
    weight = node.input[1] if len(node.input) > 1 else ""
    if weight.endswith(".weight") and "/" not in weight and ":" not in weight:
        return _safe(weight.removesuffix(".weight"))
    if node.name.startswith("/"):
        parts: list[str] = []
        for part in node.name.strip("/").split("/")[:-1]:
            if parts and part.startswith(parts[-1] + "."):
                parts.pop()
            parts.append(part)
        if parts:
            return _safe(".".join(parts))
    return _safe(node.name.replace(".", "_") or node.output[0].replace(".", "_"))


def _safe(path: str) -> str:
    """A path that modules of torch can have: no empty parts, no names that every module has."""
    parts = [re.sub(r"[^\w-]", "_", part) or "_" for part in path.split(".")]
    return ".".join(f"{part}_" if hasattr(nn.Module, part) else part for part in parts)


def identifier(name: str) -> str:
    """A name that an argument of Python can have."""
    found = re.sub(r"\W", "_", name)
    return found if found.isidentifier() and not iskeyword(found) else f"input_{found}"
