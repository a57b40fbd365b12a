"""Small networks for tests of the runtime: random weights, calibrated ranges, packed artifacts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitplan.encodings import EncodedLayer, encoding_of
from bitplan.formats import Range, Ranges, top_code
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
from bitplan.variant import F32, FLOAT32, U1, U2, U4, U8, Variant

from .reference import Reference


@dataclass(frozen=True)
class Case:
    """An encoded network with its reference and its artifact."""

    network: Network
    layers: dict[str, EncodedLayer]
    ranges: dict[str, dict[str, Range]]
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
) -> dict[str, dict[str, Range]]:
    """Ranges in all formats of codes that cover the full-precision values, zero included; in u8, SAME_RANGE operations
    inherit theirs."""
    full = encode(network, weights, {node.name: FLOAT32 for node in network.layers})
    values = Reference(network, full, weights, {}).values(inputs)
    ranges: dict[str, dict[str, Range]] = {}
    for node in network:
        value = values[node.name, F32]
        ranges[node.name] = covering(min(float(value.min()), 0.0), max(float(value.max()), 1e-3))
        if isinstance(node.op, SAME_RANGE):
            ranges[node.name][U8] = ranges[node.inputs[0]][U8]
    return ranges


def covering(low: float, high: float) -> dict[str, Range]:
    """A range in every format for values between low <= 0 and high >= 0."""
    found = {}
    for form in (U8, U4, U2):
        scale = float(np.float32((high - low) / top_code(form)))
        found[form] = Range(scale, int(np.clip(round(-low / scale), 0, top_code(form))))
    return {**found, U1: Range(float(np.float32((high - low) / 2)), 0.5 if low else 0)}


def make_case(
    network: Network,
    variants: Mapping[str, Variant],
    inputs: Mapping[str, NDArray[np.generic]],
    rng: np.random.Generator,
    planned_batch: int = 4,
    ranges: Ranges | None = None,
    kernels: Mapping[str, str] | None = None,
) -> Case:
    weights = random_weights(network, rng)
    found = {
        name: {**held, **(ranges or {}).get(name, {})} for name, held in calibrate(network, weights, inputs).items()
    }
    layers = encode(network, weights, variants)
    artifact = pack_artifact(network, weights, layers, found, kernels=kernels, planned_batch=planned_batch)
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
