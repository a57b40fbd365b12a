"""From a graph of ATen calls to a draft of the network, one call at a time.

What depends on parameters alone (weight normalisation, say) is computed here and now; every other call is looked up
in LOWERINGS and refused if it is not there.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from bitplan.capture.arithmetic import ARITHMETIC
from bitplan.capture.call import REMEDY, Call, Expanded
from bitplan.capture.draft import Draft, DraftNode
from bitplan.capture.layers import LAYERS
from bitplan.capture.pools import POOLS
from bitplan.capture.shapes import SHAPES
from bitplan.capture.trace import Trace
from bitplan.errors import UnsupportedError
from bitplan.network import Input, Shape

LOWERINGS: dict[str, Callable[[Call], Any]] = {**LAYERS, **ARITHMETIC, **POOLS, **SHAPES}
"""By the name of the ATen operation, overloads together."""

CHECKS = frozenset({"_assert_tensor_metadata", "_assert_async", "_assert_scalar", "sym_constrain_range_for_size"})
"""Calls that compute nothing."""

HINTS = {
    "gelu": "train with SiLU, hard-swish or ReLU instead",
    "leaky_relu": "train with ReLU, SiLU or hard-swish instead",
    "prelu": "train with ReLU, SiLU or hard-swish instead",
    "elu": "train with SiLU or hard-swish instead",
    "tanh": "train with a sigmoid or hard-swish instead",
    "layer_norm": "train with BatchNorm2d instead",
    "group_norm": "train with BatchNorm2d instead",
    "native_group_norm": "train with BatchNorm2d instead",
    "instance_norm": "train with BatchNorm2d instead",
    "conv1d": "write it as a Conv2d with a height of one",
    "log_softmax": "return the logits or a softmax",
    "_log_softmax": "return the logits or a softmax",
}


def lower(trace: Trace, module: nn.Module) -> Draft:
    """Raises UnsupportedError, naming operation, module path and remedy, for a call that has no exact counterpart."""
    paths = {name for name, _ in module.named_modules(remove_duplicate=False)}
    draft = Draft(paths)
    values: dict[fx.Node, Any] = {}
    for node in trace.graph.nodes:
        if node.op == "placeholder":
            values[node] = _placeholder(node, trace, draft)
        elif node.op == "call_function":
            values[node] = _call(node, trace, draft, values, paths)
        elif node.op == "output":
            found = fx.node.map_arg(node.args[0], lambda n: values[n])
            _outputs([found[place] for place in trace.outputs], draft)
        else:
            raise UnsupportedError(f"the module holds {node.target!r}, a sub-program (a branch or loop); {REMEDY}")
    return draft


def _placeholder(node: fx.Node, trace: Trace, draft: Draft) -> Any:
    if node.name in trace.constants:
        return trace.constants[node.name]
    value = node.meta["val"]
    if not isinstance(value, Tensor):
        raise UnsupportedError(f"the module's input {node.name!r} is not a tensor; give it a default in forward")
    return draft.add(DraftNode(node.name, Input(), [], tuple(int(size) for size in value.shape[1:])))


def _call(node: fx.Node, trace: Trace, draft: Draft, values: Mapping[fx.Node, Any], paths: set[str]) -> Any:
    if node.target is operator.getitem:
        sequence, index = node.args
        return values[sequence][index]  # type: ignore[index]
    target = node.target
    path, layer = _module(node)
    if not isinstance(target, torch._ops.OpOverload):
        raise UnsupportedError(f"{target} in module {path!r} is not a tensor operation that bitplan knows; {REMEDY}")
    namespace, _, operation = target._schema.name.partition("::")
    if operation in CHECKS:
        return None
    args = fx.node.map_arg(node.args, lambda n: values[n])
    kwargs = fx.node.map_arg(node.kwargs, lambda n: values[n])
    schema = target._schema.arguments
    arguments = {a.name: a.default_value for a in schema if a.has_default_value()}
    arguments.update(zip((a.name for a in schema), args, strict=False))
    arguments.update(kwargs)
    call = Call(
        draft,
        operation if namespace == "aten" else target._schema.name,
        path,
        layer,
        arguments,
        _argument_names(node, trace, paths),
        _shape(node),
        trace.batch,
    )
    if not any(isinstance(a, DraftNode | Expanded) for a in _leaves((args, kwargs))):
        if torch.Tag.nondeterministic_seeded in target.tags:
            call.fail("draws random numbers", "a captured network gives one answer per input; take it out of eval mode")
        return target(*args, **kwargs)
    if operation not in LOWERINGS or namespace != "aten":
        call.fail("is not supported", HINTS.get(operation, REMEDY))
    _check_result(node, call)
    return LOWERINGS[operation](call)


def _module(node: fx.Node) -> tuple[str, bool]:
    """The path of the module whose forward makes the call, and whether it is one of torch's own layers."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    if not stack:
        return "", False
    path, kind = stack[-1]
    kind = kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}"
    return path, kind.startswith("torch.nn.")


def _argument_names(node: fx.Node, trace: Trace, paths: set[str]) -> dict[str, str]:
    """For each argument that is a parameter as it stands: the name of the layer that it belongs to."""
    names = {}
    target = node.target
    assert isinstance(target, torch._ops.OpOverload)
    for argument, value in zip(target._schema.arguments, node.args, strict=False):
        if isinstance(value, fx.Node) and value.name in trace.parameter_names:
            owner, _, last = trace.parameter_names[value.name].rpartition(".")
            names[argument.name] = owner if last == "weight" and owner in paths else f"{owner}.{last}".lstrip(".")
    return names


def _shape(node: fx.Node) -> Shape:
    value = node.meta.get("val")
    value = value[0] if isinstance(value, list | tuple) and value else value
    return tuple(int(size) for size in value.shape[1:]) if isinstance(value, Tensor) else ()


def _check_result(node: fx.Node, call: Call) -> None:
    value = _leaves(node.meta.get("val"))[0]  # the others are indices and statistics, which nobody can read here
    if not isinstance(value, Tensor) or value.dtype != torch.float32:
        call.fail("yields something else than float32 numbers", "keep the network in float32")
    if value.ndim == 0 or value.shape[0] != call.batch:
        call.fail(
            f"yields the shape {tuple(value.shape)} from a batch of {call.batch}",
            "keep the batch as the first axis, and write x.flatten(1) or x.view(x.size(0), -1)",
        )


def _leaves(value: Any) -> list[Any]:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [leaf for item in value for leaf in _leaves(item)]
    return [value]


def _outputs(found: Sequence[Any], draft: Draft) -> None:
    for index, output in enumerate(found):
        if not isinstance(output, DraftNode):
            raise UnsupportedError(
                f"output {index} of the module does not depend on its input (or is an expanded view of it); return "
                "tensors computed from the input only"
            )
        draft.outputs.append(output)
    if not draft.outputs:
        raise UnsupportedError("the module returns nothing; return at least one tensor")
