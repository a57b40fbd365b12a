"""Rules that fold constants, padding, residuals and activations into the operation beside them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bitplan.capture.draft import Draft, DraftNode
from bitplan.network import Activate, Activation, Add, Conv2d, Linear, Mul, Pad, Padding, ScaleShift


def fold_scale_shift(draft: Draft, node: DraftNode) -> bool:
    """scale (W x + b) + shift is a layer with other weights; a scale of a scale is one scale."""
    if not isinstance(node.op, ScaleShift):
        return False
    source = node.inputs[0]
    if not isinstance(source.op, Conv2d | Linear | ScaleShift) or source.activation or len(source.inputs) > 1:
        return False
    if not draft.only_feeds(source, node):
        return False
    factor, offset = ("scale", "shift") if isinstance(source.op, ScaleShift) else ("weight", "bias")
    scale, shift = (node.arrays[kind].astype(np.float64) for kind in ("scale", "shift"))
    weight = source.arrays[factor].astype(np.float64)
    with np.errstate(all="ignore"):  # what is not finite is reported when the draft is finished
        arrays = {
            factor: weight * scale.reshape(-1, *[1] * (weight.ndim - 1)),
            offset: source.arrays[offset] * scale + shift,
        }
        source.arrays = {kind: array.astype(np.float32) for kind, array in arrays.items()}
    source.op = replace(source.op, activation=node.activation)
    draft.replace(node, source)
    return True


def fold_pad(draft: Draft, node: DraftNode) -> bool:
    """Zeros around an image that only convolutions read are padding of those convolutions."""
    if not isinstance(node.op, Pad) or any(node.op.channels) or node.op.value or node in draft.outputs:
        return False
    readers = draft.readers(node)
    if not all(isinstance(reader.op, Conv2d) and reader.inputs == [node] for reader in readers):
        return False
    top, bottom, left, right = node.op.padding
    for reader in readers:
        assert isinstance(reader.op, Conv2d)
        a, b, c, d = reader.op.padding
        padding: Padding = (a + top, b + bottom, c + left, d + right)
        reader.op = replace(reader.op, padding=padding)
    draft.replace(node, node.inputs[0])
    return True


def _composed(first: Activation, second: Activation) -> Activation | None:
    """second(first(x)) as one activation, if it is one."""
    if not first:
        return second
    if first.kind == second.kind == "clamp" and first.low <= second.high and second.low <= first.high:
        return Activation("clamp", max(first.low, second.low), min(first.high, second.high))
    return None


def fuse_activation(draft: Draft, node: DraftNode) -> bool:
    """An activation belongs to the operation whose value nobody else reads."""
    if not isinstance(node.op, Activate):
        return False
    source = node.inputs[0]
    if not isinstance(source.op, Conv2d | Linear | ScaleShift | Activate | Add | Mul):
        return False
    both = _composed(source.activation, node.activation)
    if both is None or not draft.only_feeds(source, node):
        return False
    source.op = replace(source.op, activation=both)
    draft.replace(node, source)
    return True


def fuse_residual(draft: Draft, node: DraftNode) -> bool:
    """A sum of a layer's value, which nobody else reads, and another of its shape is a layer with a residual. Of two
    such layers the later one takes the other's value, so that nothing has to wait."""
    if not isinstance(node.op, Add):
        return False
    for source in sorted(node.inputs, key=draft.nodes.index, reverse=True):
        if (
            isinstance(source.op, Conv2d | Linear)
            and not source.activation
            and len(source.inputs) == 1
            and draft.only_feeds(source, node)
            and all(operand.shape == node.shape for operand in node.inputs)
        ):
            (residual,) = (operand for operand in node.inputs if operand is not source)
            source.inputs = [source.inputs[0], residual]
            source.op = replace(source.op, activation=node.activation)
            # The layer moves to where the sum was: its residual may be made after it.
            draft.nodes.remove(source)
            draft.nodes.insert(draft.nodes.index(node), source)
            draft.changed()
            draft.replace(node, source)
            return True
    return False
