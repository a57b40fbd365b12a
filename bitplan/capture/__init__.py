"""A trained torch module becomes a Network and its weights: trace, lower, simplify, then compare with the module.

The comparison is what makes a captured network trustworthy: whatever tracing baked in (a batch size, a branch, a
random number) shows as a difference on other inputs of other batch sizes, and is refused.
"""

from __future__ import annotations

import copy
import inspect
import warnings
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
VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def capture(
    module: nn.Module, example: Tensor | tuple[Tensor, ...], *, preprocessing: Preprocessing | None = None
) -> tuple[Network, dict[str, NDArray[np.float32]]]:
    """The network that `module` computes in eval mode, and its weights by `<node>.weight` and the like.

    `example` is what the module takes (already preprocessed), float32 [N, ...], one tensor per forward argument; the
    batch stays free, all other sizes become fixed. `module` itself is not touched. Layers are called by their module
    path, inputs by the forward arguments, outputs without weights `output`, `output_1` and so on in order.

    Raises UnsupportedError for what cannot be executed faithfully (naming the operation, the module path and what can
    be done), DataError for unusable example or weights, or if the module cannot take the example; UsageError where the arguments are not what they should be.
    """
    _check_module(module)
    preprocessing = preprocessing or Preprocessing()
    examples = example if isinstance(example, tuple) else (example,)
    _check_examples(examples, preprocessing)
    _check_arguments(module, examples)
    frozen = _frozen_copy(module)
    _check_weights(frozen)
    examples = tuple(x[:LARGEST_BATCH].detach().cpu().clone() for x in examples)
    # A batch of one hides where the batch goes: any axis of size one could be it.
    examples = tuple(torch.cat([x, x]) for x in examples) if len(examples[0]) == 1 else examples
    with torch.no_grad():
        _check_takes(_frozen_copy(module), examples)  # another copy: running may change what a module keeps
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


def _check_arguments(module: nn.Module, examples: tuple[Tensor, ...]) -> None:
    try:
        signature = inspect.signature(module.forward)
    except (TypeError, ValueError):
        return  # not written in Python
    try:
        signature.bind(*examples)
    except TypeError as error:
        required = [p.name for p in signature.parameters.values() if p.default is p.empty and p.kind not in VARIADIC]
        inputs = "1 input" if len(required) == 1 else f"{len(required)} inputs"
        given = "1 example was" if len(examples) == 1 else f"{len(examples)} examples were"
        raise UsageError(
            f"{type(module).__name__}.forward takes {inputs} ({', '.join(required) or 'none'}), but {given} "
            "given; pass capture one example per positional argument, as a tuple (the command line knows networks of "
            "one input only)"
        ) from error


def _check_takes(module: nn.Module, examples: tuple[Tensor, ...]) -> None:
    """Runs the plain module, so that what is its own fault, or the example's, is not put down to tracing."""
    error = _failure(module, examples)
    if error is None:
        return
    if _failure(module, tuple(x[:1] for x in examples)) is None:
        raise UnsupportedError(
            f"the network takes one image but not {len(examples[0])} ({_first_line(error)}); it must work for any batch "
            "size: write x.flatten(1) or x.view(x.size(0), -1) instead of fixed numbers"
        ) from error
    shapes = " and ".join(str(tuple(x.shape[1:])) for x in examples)
    raise DataError(
        f"the network itself cannot take an input of shape {shapes} (batch left out): {type(error).__name__}: "
        f"{_first_line(error)}; check the shape and the channels of --data, or the input_shape that the model's function "
        "returns"
    ) from error


def _failure(module: nn.Module, inputs: tuple[Tensor, ...]) -> Exception | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module(*(x.clone() for x in inputs))
    except Exception as error:  # noqa: BLE001 - the user's code may raise anything
        return error
    return None


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
