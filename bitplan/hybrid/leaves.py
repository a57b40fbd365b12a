"""The layers of a torch module that drop-ins can take the place of, found by running it once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from bitplan.errors import UsageError
from bitplan.kernels.torch_modules import operation_of, output_shape, swap, weight_shape_of
from bitplan.network import Conv2d, Linear, Shape

Seen = Callable[[Tensor], None]


@dataclass(frozen=True, slots=True)
class Call:
    """Calls of a layer in one inference: the shape of its input (without the batch), and how many calls there are with
    as many images as the network gets. A call on k times as many images counts k times."""

    shape: Shape
    times: float = 1.0


@dataclass(frozen=True)
class Leaf:
    """A layer by its path in the module (the first, if it has several), with its calls."""

    name: str
    module: nn.Module
    calls: tuple[Call, ...]

    @property
    def largest(self) -> Shape:
        """The shape that its node in the network has."""
        return max(self.calls, key=lambda call: torch.Size(call.shape).numel()).shape

    @property
    def call_count(self) -> float:
        return sum(call.times for call in self.calls)


@dataclass(frozen=True)
class Found:
    """The leaves in the order of their first call, and why other layers with weights stay in torch."""

    leaves: tuple[Leaf, ...]
    kept: Mapping[str, str]


def find_leaves(module: nn.Module, example: Tensor) -> Found:
    """Runs the module once on `example`, the preprocessed images [B, ...] of one inference."""
    paths: dict[nn.Module, str] = {
        child: name for name, child in module.named_modules() if name and isinstance(child, nn.Conv2d | nn.Linear)
    }
    kept: dict[str, str] = {}
    calls: dict[nn.Module, list[Call]] = {}
    for child, name in paths.items():
        try:
            operation_of(child)
        except UsageError as error:
            kept[name] = str(error)

    def seen(child: nn.Module, x: Any) -> None:
        found = calls.setdefault(child, [])
        try:
            found.append(_call(child, x, len(example)))
        except UsageError as error:
            kept.setdefault(paths[child], str(error))

    with watched({child: partial(seen, child) for child in paths}), torch.inference_mode():
        module(example)
    for child, name in paths.items():
        if child not in calls:
            kept.setdefault(name, "it was not called")
    usable = [child for child in calls if paths[child] not in kept]
    if not _runs_with(module, example, usable):
        for child in [child for child in usable if not _runs_with(module, example, [child])]:
            kept[paths[child]] = "other code reads its weight or another attribute that a drop-in lacks"
    leaves = [Leaf(paths[child], child, _merged(calls[child])) for child in usable if paths[child] not in kept]
    return Found(tuple(leaves), kept)


SIZES = ("in_channels", "out_channels", "groups", "kernel_size", "stride", "dilation", "padding")
OFFERED = (*SIZES, "in_features", "out_features")


class Bare(nn.Module):
    """A layer without any of its attributes but the sizes that drop-ins have too."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.compute = layer.forward  # a method, so that the layer is no part of this module
        for name in OFFERED:
            if hasattr(layer, name):
                setattr(self, name, getattr(layer, name))
        if isinstance(op := operation_of(layer), Conv2d):
            self.padding = (op.padding[0], op.padding[2])  # in numbers, as drop-ins have it, where a layer says "same"

    def forward(self, input: Tensor) -> Any:
        return self.compute(input)


def _runs_with(module: nn.Module, example: Tensor, layers: list[nn.Module]) -> bool:
    """Whether the module needs nothing of these layers but their calls."""
    bare: dict[nn.Module, nn.Module] = {layer: Bare(layer) for layer in layers}
    swap(module, bare)
    try:
        with torch.inference_mode():
            module(example)
    except Exception:  # noqa: BLE001 - the user's code may raise anything
        return False
    finally:
        swap(module, {new: old for old, new in bare.items()})
    return True


@contextmanager
def watched(modules: Mapping[nn.Module, Seen]) -> Iterator[None]:
    """Shows every input of these modules while the context lasts, before they are called."""

    def hook(seen: Seen) -> Callable[..., None]:
        return lambda _, args, kwargs: seen((*args, *kwargs.values())[0])

    with ExitStack() as stack:
        for module, seen in modules.items():
            stack.callback(module.register_forward_pre_hook(hook(seen), with_kwargs=True).remove)
        yield


def _call(module: nn.Module, x: Any, batch: int) -> Call:
    if not isinstance(x, Tensor) or x.dtype != torch.float32 or x.device.type != "cpu":
        raise UsageError(f"it reads {x.dtype if isinstance(x, Tensor) else type(x).__name__}, not float32 on the CPU")
    if not x.numel():
        raise UsageError(
            f"it is called with nothing (a tensor of shape {tuple(x.shape)}); give --data on which every layer runs"
        )
    op, weight = operation_of(module), weight_shape_of(module)
    if not isinstance(op, Linear):
        if x.ndim != 4:
            raise UsageError(f"it reads a tensor of shape {tuple(x.shape)}, not a batch of images")
        call = Call(tuple(x.shape[1:]), len(x) / batch)
    else:
        # All leading axes are rows, of as many images as the network gets where they can be shared out.
        rows, features = x.numel() // x.shape[-1], x.shape[-1]
        each, times = (rows // batch, 1.0) if rows % batch == 0 else (rows, 1 / batch)
        call = Call((features,) if each == 1 else (each, features), times)
    output_shape(op, weight, call.shape)
    return call


def _merged(calls: list[Call]) -> tuple[Call, ...]:
    """Calls of one shape as one."""
    times: dict[Shape, float] = {}
    for call in calls:
        times[call.shape] = times.get(call.shape, 0.0) + call.times
    return tuple(Call(shape, count) for shape, count in times.items())
