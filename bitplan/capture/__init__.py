"""A trained torch module becomes a Network and its weights: trace, lower, simplify, then compare with the module.

The comparison is what makes a captured network trustworthy: whatever tracing baked in (a batch size, a branch, a
random number) shows as a difference on other inputs of other batch sizes, and is refused.
"""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bitplan.capture.lower import LOWERINGS, lower
from bitplan.capture.simplify import simplify
from bitplan.capture.trace import trace
from bitplan.capture.verify import verify
from bitplan.errors import DataError, UnsupportedError, UsageError
from bitplan.network import Network, Preprocessing

__all__ = ["capture"]

LARGEST_BATCH = 8
"""Images of the example that are looked at."""


def capture(
    module: nn.Module, example: Tensor | tuple[Tensor, ...], *, preprocessing: Preprocessing | None = None
) -> tuple[Network, dict[str, NDArray[np.float32]]]:
    """The network that `module` computes in eval mode, and its weights by `<node>.weight` and the like.

    `example` is what the module takes (already preprocessed), float32 [N, ...], one tensor per forward argument; the
    batch stays free, all other sizes become fixed. `module` itself is not touched. Layers are called by their module
    path, inputs by the forward arguments, outputs without weights `output`, `output_1` and so on in order.

    Raises UnsupportedError for what cannot be executed faithfully (naming the operation, the module path and what can
    be done), DataError for unusable example or weights, UsageError where the arguments are not what they should be.
    """
    _check_module(module)
    preprocessing = preprocessing or Preprocessing()
    examples = example if isinstance(example, tuple) else (example,)
    _check_examples(examples, preprocessing)
    frozen = _frozen_copy(module)
    _check_weights(frozen)
    examples = tuple(x[:LARGEST_BATCH].detach().cpu().clone() for x in examples)
    # A batch of one hides where the batch goes: any axis of size one could be it.
    examples = tuple(torch.cat([x, x]) for x in examples) if len(examples[0]) == 1 else examples
    with torch.no_grad():
        draft = lower(trace(frozen, examples, LOWERINGS), frozen)
        simplify(draft)
        network, weights = draft.finish()
        verify(network, weights, frozen, examples)
    return replace(network, preprocessing=preprocessing), weights


def _check_module(module: object) -> None:
    if not isinstance(module, nn.Module):
        raise UsageError(f"capture needs a torch.nn.Module, not {type(module).__name__}; the model function returns it")


def _check_examples(examples: tuple[Tensor, ...], preprocessing: Preprocessing) -> None:
    for index, x in enumerate(examples):
        kind = getattr(x, "dtype", type(x).__name__)
        if kind != torch.float32 or not hasattr(x, "detach"):
            raise UsageError(f"example {index} must be a float32 torch tensor [N, ...], not {kind}")
        if x.ndim < 2 or x.numel() == 0 or len(x) != len(examples[0]):
            raise UsageError(
                f"example {index} has shape {tuple(x.shape)}; the first axis is the batch, the same for all examples, "
                "and no axis may be empty"
            )
        if not torch.isfinite(x).all():
            raise DataError(f"example {index} holds NaN or infinite values; give real inputs")
        channels = len(preprocessing.mean)
        if channels and (x.ndim != 4 or x.shape[1] != channels):
            raise UsageError(
                f"preprocessing has {channels} channels, but example {index} has shape {tuple(x.shape)}; preprocessing "
                "applies to every input, so give one mean and std per channel of [N, C, H, W]"
            )


def _frozen_copy(module: nn.Module) -> nn.Module:
    try:
        frozen = copy.deepcopy(module)
    except Exception as error:
        raise UnsupportedError(
            f"{type(module).__name__} cannot be copied ({_first_line(error)}); return a fresh module without hooks or "
            "tensors computed from its parameters"
        ) from error
    return frozen.cpu().eval().requires_grad_(False)


def _check_weights(module: nn.Module) -> None:
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if not tensor.is_floating_point():
            continue
        if tensor.dtype != torch.float32:
            raise UnsupportedError(f"{name!r} is {tensor.dtype}; bitplan captures float32 modules: call .float() first")
        if not torch.isfinite(tensor).all():
            raise DataError(f"{name!r} holds NaN or infinite values; load the weights of a training that converged")


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
