"""Rewrites a draft into the form that is quantised and executed, without changing what it computes.

Each rule looks at one node and answers whether it changed the draft; a stage applies its rules until none does.
The stages are ordered: constants are folded into the layers before residuals and activations close them.
"""

from __future__ import annotations

from collections.abc import Callable

from bitplan.capture.draft import Draft, DraftNode
from bitplan.capture.fuse import fold_pad, fold_scale_shift, fuse_activation, fuse_residual
from bitplan.network import (
    Activate,
    AveragePool,
    Concat,
    MaxPool,
    Mean,
    Pad,
    Permute,
    Reshape,
    ScaleShift,
    Slice,
)

Rule = Callable[[Draft, DraftNode], bool]


def simplify(draft: Draft) -> None:
    """Applies all rules, in place."""
    draft.drop_dead()
    for stage in STAGES:
        while _sweep(draft, stage):
            draft.drop_dead()


def _sweep(draft: Draft, rules: tuple[Rule, ...]) -> bool:
    changed = False
    for rule in rules:
        for node in tuple(draft.nodes):
            if node in draft:
                changed |= rule(draft, node)
    return changed


def drop_idle(draft: Draft, node: DraftNode) -> bool:
    """Drops a node that passes its input on as it is."""
    if len(node.inputs) != 1 or not _is_idle(node):
        return False
    draft.replace(node, node.inputs[0])
    return True


def _is_idle(node: DraftNode) -> bool:
    op, source = node.op, node.inputs[0]
    if isinstance(op, Reshape):
        return node.shape == source.shape
    if isinstance(op, Slice):
        return op.ranges == tuple((0, size, 1) for size in source.shape)
    if isinstance(op, Permute):
        return op.order == tuple(range(len(op.order)))
    if isinstance(op, Concat):
        return True
    if isinstance(op, Pad):
        return not any(op.padding) and not any(op.channels)
    if isinstance(op, MaxPool | AveragePool):
        return op.kernel == op.stride == (1, 1) and not any(op.padding)
    if isinstance(op, ScaleShift):
        return not op.activation and bool((node.arrays["scale"] == 1).all() and (node.arrays["shift"] == 0).all())
    if isinstance(op, Activate) and op.activation.kind == source.activation.kind == "clamp":
        return op.activation.low <= source.activation.low and source.activation.high <= op.activation.high
    return False


def merge_moves(draft: Draft, node: DraftNode) -> bool:
    """Two reshapes, slices or permutations in a row are one."""
    if not node.inputs or type(node.op) is not type(node.inputs[0].op):
        return False
    first = node.inputs[0]
    match node.op, first.op:
        case Reshape(), Reshape():
            pass
        case Slice(), Slice():
            pairs = zip(first.op.ranges, node.op.ranges, strict=True)
            node.op = Slice(tuple(_inner_range(outer, inner) for outer, inner in pairs))
        case Permute(), Permute():
            node.op = Permute(tuple(first.op.order[axis] for axis in node.op.order))
        case _:
            return False
    node.inputs = list(first.inputs)
    draft.changed()
    return True


def _inner_range(outer: tuple[int, int, int], inner: tuple[int, int, int]) -> tuple[int, int, int]:
    """The indices that `inner` takes of those that `outer` took."""
    taken = range(*outer)[slice(*inner)]
    return taken.start, min(taken.stop, outer[1]), taken.step


def pool_whole_image(draft: Draft, node: DraftNode) -> bool:
    """An average over the whole image is a mean."""
    if not isinstance(node.op, AveragePool) or any(node.op.padding) or node.op.kernel != node.inputs[0].shape[1:]:
        return False
    node.op = Mean(keep=True)
    return True


def flatten_mean(draft: Draft, node: DraftNode) -> bool:
    """A reshape between (C, 1, 1) and (C,) behind a mean, and one in front that only rearranges the pixels."""
    source = node.inputs[0] if node.inputs else node
    if isinstance(node.op, Mean) and isinstance(source.op, Reshape):
        image = source.inputs[0]
        if len(image.shape) == 3 and image.shape[0] == source.shape[0]:
            node.inputs = [image]
            draft.changed()
            return True
    if not isinstance(node.op, Reshape) or not isinstance(source.op, Mean) or not draft.only_feeds(source, node):
        return False
    channels = source.shape[:1]
    if node.shape not in (channels, (*channels, 1, 1)):
        return False
    source.op, source.shape = Mean(keep=len(node.shape) == 3), node.shape
    draft.replace(node, source)
    return True


STAGES: tuple[tuple[Rule, ...], ...] = (
    (drop_idle, merge_moves, pool_whole_image, flatten_mean, fold_scale_shift),
    (fold_pad, fuse_activation, drop_idle),
    (fuse_residual, fuse_activation, drop_idle),
)
