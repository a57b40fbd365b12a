"""What a torch module returns, as arrays by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from bitplan.errors import DataError
from bitplan.network import Input, Network, Node

Arrays = dict[str, NDArray[np.float32]]


def flatten(value: Any, name: str = "") -> dict[str, Tensor]:
    """Every tensor of floats in tuples, lists, mappings and dataclasses, named by its path (`boxes.0`); one that stands
    alone is called `output`."""
    if isinstance(value, Tensor):
        return {name or "output": value} if value.is_floating_point() else {}
    if isinstance(value, Mapping):
        items = [(str(key), item) for key, item in value.items()]
    elif isinstance(value, tuple | list):
        items = [(str(index), item) for index, item in enumerate(value)]
    elif dataclasses.is_dataclass(value):
        items = [(f.name, getattr(value, f.name)) for f in dataclasses.fields(value)]
    else:
        return {}
    return {
        path: tensor for key, item in items for path, tensor in flatten(item, f"{name}.{key}" if name else key).items()
    }


def arrays_of(value: Any, batch: int) -> Arrays:
    """The flattened outputs of `batch` images, [batch, ...] each; what has another first axis says nothing of images
    (anchors, for instance) and is left out. Raises DataError where nothing remains."""
    found = flatten(value)
    arrays = {
        name: x.detach().float().cpu().contiguous().numpy() for name, x in found.items() if x.ndim and len(x) == batch
    }
    if not arrays:
        shapes = ", ".join(f"{name} {tuple(x.shape)}" for name, x in found.items()) or "no tensor of floats"
        raise DataError(
            f"the model returns {shapes} for {batch} images; to compare it with full precision, return tensors "
            "[N, ...] of a fixed shape, such as scores and boxes before non-maximum suppression"
        )
    return {name: array[:, None] if array.ndim == 1 else array for name, array in arrays.items()}


def joined(parts: list[Arrays]) -> Arrays:
    """Consecutive batches as one. Raises DataError, naming the output, where their shapes differ."""
    for part in parts:
        for name in parts[0]:
            if name not in part or part[name].shape[1:] != parts[0][name].shape[1:]:
                found = part[name].shape[1:] if name in part else "nothing"
                raise DataError(
                    f"the output {name!r} has the shape {parts[0][name].shape[1:]} for some images and {found} for "
                    "others; return tensors of a fixed shape, such as scores and boxes before non-maximum suppression"
                )
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def outputs_network(example: Arrays) -> Network:
    """Names and shapes of the outputs in the form that metrics ask for."""
    nodes = tuple(Node(name, Input(), (), tuple(array.shape[1:])) for name, array in example.items())
    return Network(nodes, tuple(example))
