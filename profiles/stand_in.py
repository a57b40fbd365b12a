"""Artifacts with made-up weights: what a network's kernels cost does not depend on what the weights say.

Codes are drawn at random from the levels that an encoding uses, and scaled like He initialisation (arXiv 1502.01852),
so that activations neither vanish into denormal numbers nor overflow, which would change a float kernel's speed.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitplan.encodings import EncodedLayer, encoding_of
from bitplan.encodings.apb import Apb
from bitplan.encodings.coded import Coded
from bitplan.encodings.pruned import Pruned, PrunedFloat
from bitplan.encodings.xor import Xor
from bitplan.formats import Range, top_code
from bitplan.kernels.artifact import pack_artifact
from bitplan.network import SAME_RANGE, Network, Node, ScaleShift, WeightShape
from bitplan.variant import F32, U1, U2, U4, U8, Variant

KEPT_RATIO = 3
"""Magnitude of a kept weight over that of the others."""


def stand_in_layer(shape: WeightShape, variant: Variant, rng: np.random.Generator) -> EncodedLayer:
    """A layer of the given shape and variant with random codes and zero bias."""
    size = (shape.out_channels, shape.in_channels // shape.groups, *shape.kernel)
    bias = np.zeros(shape.out_channels, np.float32)
    spread = sqrt(2 / shape.reduction)
    encoding = encoding_of(variant)
    if isinstance(
        encoding, Pruned | PrunedFloat
    ):  # few levels may be other than zero: the largest have about half the power
        weight = rng.standard_normal(size, np.float32) * np.float32(sqrt(2) * spread)
        return encoding.quantise(weight, bias, variant, shape.groups)
    if variant.activation == F32:
        values = rng.standard_normal(size, np.float32) * np.float32(spread)
        return EncodedLayer(variant, shape, bias, values=values)
    if isinstance(encoding, Xor):  # not every choice of levels has a code
        return encoding.random_layer(shape, variant, spread, rng)
    if isinstance(encoding, Coded):  # zeros fit every rate, and the integer kernels do not look at levels
        scale = np.full(shape.out_channels, spread, np.float32)
        layer = EncodedLayer(variant, shape, bias, levels=np.zeros(size, np.int8), numbers=encoding.numbers)
        return layer.rescaled(scale)
    sample = encoding.quantise(rng.standard_normal((1, 4096, 1, 1), np.float32), np.zeros(1, np.float32), variant)
    levels = np.unique(np.delete(sample.levels, sample.kept_positions))
    codes = levels[rng.integers(0, len(levels), shape.count, np.uint8)].reshape(size)
    scale = np.full(shape.out_channels, spread / sqrt(np.mean(levels.astype(np.float64) ** 2)), np.float32)
    kept = encoding.full_precision_weights(shape, variant)
    positions = np.sort(rng.choice(shape.count, kept, replace=False, shuffle=False)).astype(np.int64)
    if isinstance(encoding, Apb):
        far = np.clip(KEPT_RATIO * levels[[0, -1]].astype(np.int64), -encoding.top, encoding.top)
        codes.reshape(-1)[positions] = rng.choice(far, kept)
    return EncodedLayer(variant, shape, bias, levels=codes, kept_positions=positions).rescaled(scale)


def stand_in_artifact(
    network: Network,
    variants: Mapping[str, Variant],
    batch: int = 1,
    seed: int = 0,
    *,
    kernels: Mapping[str, str] | None = None,
) -> bytes:
    """The artifact of a policy with random weights, for the given largest batch."""
    rng = np.random.default_rng(seed)
    layers = {
        node.name: stand_in_layer(network.weight_shape(node), variants[node.name], rng) for node in network.layers
    }
    shifts: dict[str, NDArray[np.float32]] = {}
    for node in network:
        if isinstance(node.op, ScaleShift):
            channels = node.shape[0 if len(node.shape) == 3 else -1]
            shifts[f"{node.name}.scale"] = np.ones(channels, np.float32)
            shifts[f"{node.name}.shift"] = np.zeros(channels, np.float32)
    return pack_artifact(network, shifts, layers, stand_in_ranges(network), kernels=kernels, planned_batch=batch)


def stand_in_ranges(network: Network) -> dict[str, dict[str, Range]]:
    """Ranges in every format of codes that differ from value to value, as calibrated ones do (an operation whose operands
    happened to agree could take a short cut), except where an operation's output has the u8 range of its input."""
    ranges: dict[str, dict[str, Range]] = {}
    for number, node in enumerate(network):
        width = 10 + 0.25 * (number % 16)
        zero_points = {U8: 120 + number % 16, U4: 7, U2: 1, U1: 0.5}
        ranges[node.name] = {form: Range(width / top_code(form), zero) for form, zero in zero_points.items()}
        if isinstance(node.op, SAME_RANGE):
            ranges[node.name][U8] = ranges[node.inputs[0]][U8]
    return ranges


def stand_in_input(network: Network, batch: int = 1, seed: int = 0) -> dict[str, NDArray[Any]]:
    """Raw inputs by name: bytes for images, standard normal numbers for anything else."""
    rng = np.random.default_rng(seed)

    def raw(node: Node) -> NDArray[Any]:
        shape = (batch, *node.shape)
        return rng.integers(0, 256, shape, np.uint8) if len(shape) == 4 else rng.standard_normal(shape, np.float32)

    return {node.name: raw(node) for node in network.inputs}
