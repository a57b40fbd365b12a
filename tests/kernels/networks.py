"""Small networks for tests of the runtime: random weights, calibrated ranges, packed artifacts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitplan.encodings import EncodedLayer, encoding_of
from bitplan.formats import Range
from bitplan.kernels.artifact import pack_artifact
from bitplan.network import (
    RELU,
    RELU6,
    SAME_RANGE,
    Conv2d,
    Input,
    Linear,
    Mean,
    Network,
    Node,
    Op,
    Preprocessing,
    ScaleShift,
    Shape,
)
from bitplan.variant import F32, FLOAT32, Variant

from .reference import Reference


@dataclass(frozen=True)
class Case:
    """An encoded network with its reference and its artifact."""

    network: Network
    layers: dict[str, EncodedLayer]
    ranges: dict[str, Range]
    reference: Reference
    artifact: bytes


def random_weights(network: Network, rng: np.random.Generator) -> dict[str, NDArray[np.float32]]:
    weights = {}
    for node in network:
        if isinstance(node.op, Conv2d | Linear):
            s = network.weight_shape(node)
            size = (s.out_channels, s.in_channels // s.groups, *s.kernel)
            weights[f"{node.name}.weight"] = (rng.normal(size=size) / np.sqrt(s.reduction)).astype(np.float32)
            weights[f"{node.name}.bias"] = rng.normal(0, 0.2, s.out_channels).astype(np.float32)
        elif isinstance(node.op, ScaleShift):
            channels = node.shape[0] if len(node.shape) == 3 else node.shape[-1]
            weights[f"{node.name}.scale"] = rng.normal(1, 0.3, channels).astype(np.float32)
            weights[f"{node.name}.shift"] = rng.normal(0, 0.3, channels).astype(np.float32)
    return weights


def encode(
    network: Network, weights: Mapping[str, NDArray[np.float32]], variants: Mapping[str, Variant]
) -> dict[str, EncodedLayer]:
    layers = {}
    for node in network.layers:
        s = network.weight_shape(node)
        weight = weights[f"{node.name}.weight"]
        variant = variants[node.name]
        layers[node.name] = encoding_of(variant).quantise(weight, weights[f"{node.name}.bias"], variant, s.groups)
    return layers


def calibrate(
    network: Network, weights: Mapping[str, NDArray[np.float32]], inputs: Mapping[str, NDArray[np.generic]]
) -> dict[str, Range]:
    """Ranges that cover the full-precision values, zero included; SAME_RANGE operations inherit theirs."""
    full = encode(network, weights, {node.name: FLOAT32 for node in network.layers})
    values = Reference(network, full, weights, {}).values(inputs)
    ranges: dict[str, Range] = {}
    for node in network:
        if isinstance(node.op, SAME_RANGE):
            ranges[node.name] = ranges[node.inputs[0]]
            continue
        value = values[node.name, F32]
        low, high = min(float(value.min()), 0.0), max(float(value.max()), 0.0)
        scale = float(np.float32(max(high - low, 1e-3) / 255))
        ranges[node.name] = Range(scale, int(np.clip(round(-low / scale), 0, 255)))
    return ranges


def make_case(
    network: Network,
    variants: Mapping[str, Variant],
    inputs: Mapping[str, NDArray[np.generic]],
    rng: np.random.Generator,
    planned_batch: int = 4,
    ranges: Mapping[str, Range] | None = None,
) -> Case:
    weights = random_weights(network, rng)
    found = {**calibrate(network, weights, inputs), **(ranges or {})}
    layers = encode(network, weights, variants)
    artifact = pack_artifact(network, weights, layers, found, planned_batch=planned_batch)
    return Case(network, layers, found, Reference(network, layers, weights, found), artifact)


def network_of(
    operations: Sequence[tuple[str, Op, tuple[str, ...], Shape]],
    outputs: Sequence[str],
    preprocessing: Preprocessing | None = None,
) -> Network:
    nodes = tuple(Node(name, op, inputs, shape) for name, op, inputs, shape in operations)
    return Network(nodes, tuple(outputs), preprocessing or Preprocessing())


def random_inputs(
    network: Network, batch: int, rng: np.random.Generator, dtype: type[np.generic] = np.float32
) -> dict[str, NDArray[np.generic]]:
    inputs: dict[str, NDArray[np.generic]] = {}
    for node in network:
        if isinstance(node.op, Input):
            size = (batch, *node.shape)
            inputs[node.name] = (
                rng.integers(0, 256, size, np.uint8) if dtype is np.uint8 else rng.normal(size=size).astype(np.float32)
            )
    return inputs


def residual_network() -> Network:
    """A small image classifier with every kind of layer: plain, strided, depthwise, grouped, residual, linear."""
    return network_of(
        [
            ("x", Input(), (), (3, 12, 10)),
            ("stem", Conv2d((3, 3), (1, 1), (1, 1, 1, 1), activation=RELU), ("x",), (20, 12, 10)),
            ("dw", Conv2d((3, 3), (2, 2), (1, 1, 1, 1), groups=20, activation=RELU6), ("stem",), (20, 6, 5)),
            ("grouped", Conv2d((3, 3), (1, 1), (1, 1, 1, 1), groups=2), ("dw",), (36, 6, 5)),
            ("join", Conv2d((1, 1), activation=RELU), ("grouped", "dw"), (20, 6, 5)),
            ("mean", Mean(), ("join",), (20,)),
            ("logits", Linear(), ("mean",), (10,)),
        ],
        ["logits"],
        Preprocessing((120.0, 115.0, 105.0), (58.0, 57.0, 57.5)),
    )
