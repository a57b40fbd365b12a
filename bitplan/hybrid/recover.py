"""Recovery of a leaf on the inputs that it gets in the user's module."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from math import prod
from typing import Any

from numpy.typing import NDArray
from torch import Tensor

from bitplan.encodings import EncodedLayer
from bitplan.formats import derive_formats
from bitplan.hybrid.leaves import Leaf, watched
from bitplan.hybrid.runner import Runner, Stop
from bitplan.hybrid.twin import Held, layer_node, leaf_simulator
from bitplan.kernels.torch_modules import float_weights
from bitplan.policies.realise.front import Front
from bitplan.policies.realise.pipeline import quantise
from bitplan.policies.realise.subject import Recovery, Subject
from bitplan.simulate import Simulator
from bitplan.variant import FLOAT32, Variant

MEMORY = 1 << 29
"""Bytes that the kept inputs of one leaf may take."""

Inputs = list[Tensor]


def leaf_inputs(runner: Runner, leaf: Leaf, images: NDArray[Any]) -> Inputs:
    """What the leaf reads, call by call, for as many of the images as MEMORY can hold (of one batch at least)."""
    each = sum(call.times * prod(call.shape) for call in leaf.calls)
    images = images[: max(runner.batch, int(MEMORY / (4 * each)))]
    seen: Inputs = []
    for x in runner.batches(images):

        def take(value: Tensor, start: int = len(seen), expected: float = each * len(x)) -> None:
            seen.append(value.clone())
            if sum(y.numel() for y in seen[start:]) >= expected:
                raise Stop  # the rest of the module does not matter

        with watched({leaf.module: take}), suppress(Stop):
            runner(x)
    return seen


def recovered(
    leaf: Leaf,
    variant: Variant,
    held: Held,
    full: Sequence[Tensor],
    quantised: Sequence[Tensor],
    recoveries: Sequence[Recovery],
) -> EncodedLayer:
    """The leaf as `variant` after these steps (policies/realise): `full` and `quantised` are its inputs on the
    same images in the full-precision module and behind the leaves that are encoded already."""
    simulator = leaf_simulator(leaf)
    network, node = simulator.network, layer_node(simulator.network)
    layer = quantise(network, node, float_weights(leaf.name, leaf.module), variant)
    if variant == FLOAT32 or not full or not quantised:
        return layer
    source = network.nodes[0].name
    pairs = list(zip(full, quantised, strict=False))  # control flow may call a leaf more or less often
    fronts = [_front(simulator, [pair[side] for pair in pairs], source) for side in (0, 1)]
    formats = derive_formats(network, {node.name: variant})
    subject = Subject(node, fronts[0], fronts[1], {source: held}, formats)
    for recover in recoveries:
        layer = recover(subject, layer)
    return layer


def _front(simulator: Simulator, inputs: Inputs, source: str) -> Front:
    return Front(simulator, [{source: x} for x in inputs], 1)
