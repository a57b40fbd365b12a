"""From a module to a graph of functional ATen operations, by torch.export first and torch.fx second."""

from __future__ import annotations

import io
import logging
import operator
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn
from torch.export.graph_signature import InputKind, OutputKind

from bitplan.errors import UnsupportedError


@dataclass(frozen=True)
class Trace:
    """`graph` holds ATen calls without mutation, its placeholders the inputs, by the names of the arguments, and
    `constants`: parameters (`parameter_names` says which), buffers and other fixed tensors. `outputs` are the places
    of the module's outputs among the graph's, `batch` is the batch size it was traced with."""

    graph: fx.Graph
    constants: dict[str, Tensor]
    parameter_names: dict[str, str]
    outputs: tuple[int, ...]
    batch: int


def trace(module: nn.Module, examples: tuple[Tensor, ...], known: Collection[str]) -> Trace:
    """`known`: the ATen operations that need not be written as others.
    Raises UnsupportedError, with both reasons, where neither way yields a graph."""
    with _quiet():
        try:
            return _export(module, examples, known)
        except UnsupportedError:
            raise
        except Exception as error:  # noqa: BLE001 - tracing runs the user's code, which may raise anything
            by_export = error
        try:
            # The symbolic trace is free of the Python that export could not follow (attributes set in forward, say).
            return _export(fx.symbolic_trace(module), examples, known)
        except UnsupportedError:
            raise
        except Exception as by_fx:  # noqa: BLE001 - see above
            raise UnsupportedError(
                f"{type(module).__name__} cannot be traced. torch.export: {_reason(by_export)}. torch.fx: "
                f"{_reason(by_fx)}. Make forward a fixed sequence of tensor operations: no branch, loop bound or "
                "Python number that depends on the data, and no operation that fails on the example"
            ) from by_export


def _export(module: nn.Module, examples: tuple[Tensor, ...], known: Collection[str]) -> Trace:
    program = torch.export.export(module, examples, strict=False)
    if not _is_plain(program.graph, known):
        program = program.run_decompositions({})
    signature = program.graph_signature
    constants: dict[str, Tensor] = {}
    parameter_names: dict[str, str] = {}
    for spec in signature.input_specs:
        name = spec.arg.name
        if spec.kind == InputKind.USER_INPUT:
            continue
        if spec.kind in (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR):
            assert spec.target is not None
            stored = program.state_dict if spec.target in program.state_dict else program.constants
            tensor = stored[spec.target]
            assert isinstance(tensor, Tensor)
            constants[name], parameter_names[name] = tensor.detach(), spec.target
        else:
            raise UnsupportedError(f"the module takes an input of the kind {spec.kind.name}; pass tensors only")
    for output in signature.output_specs:
        # A module may overwrite its input (an in-place activation): the network computes what it returns.
        if output.kind not in (OutputKind.USER_OUTPUT, OutputKind.USER_INPUT_MUTATION):
            raise UnsupportedError(
                f"the module changes {output.target!r} while it runs; the runtime keeps no state between calls, so "
                "compute it without the change in eval mode"
            )
    outputs = [i for i, spec in enumerate(signature.output_specs) if spec.kind == OutputKind.USER_OUTPUT]
    return Trace(program.graph, constants, parameter_names, tuple(outputs), len(examples[0]))


def _is_plain(graph: fx.Graph, known: Collection[str]) -> bool:
    """Whether no call changes its argument and all are known, so that nothing has to be decomposed (which is slow)."""
    for node in graph.nodes:
        if node.op != "call_function" or node.target is operator.getitem:
            continue
        target = node.target
        if not isinstance(target, torch._ops.OpOverload) or target._schema.is_mutable:
            return False
        if target._schema.name.removeprefix("aten::") not in known:
            return False
    return True


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps export's own warnings, logged stack traces and the graph that it prints where it fails for the logger
    `bitplan.capture`, at the level DEBUG; what matters of them is in the error we raise."""
    said = io.StringIO()
    try:
        with warnings.catch_warnings(record=True) as warned, redirect_stderr(said):
            warnings.simplefilter("default")
            yield
    finally:
        logger = logging.getLogger(__name__)
        for text in [*(str(one.message) for one in warned), *said.getvalue().splitlines()]:
            logger.debug("torch: %s", text)


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300].rstrip(".")
