"""Made-up programs larger than the recorded ones, for benchmarks/solvers.py: `gram:60x30` and `chain:200x12x4`."""

from __future__ import annotations

import numpy as np

from bitplan.optimizer.builder import ProblemBuilder
from bitplan.optimizer.problem import Problem

DIRECTIONS = 400
"""Dimensions of the changes of the outputs that Gram matrices are made of."""
BITS = 2.5
"""Bits per weight that `gram` problems allow."""


def made_problem(name: str) -> Problem:
    """`gram:LAYERSxVARIANTS` or `chain:LAYERSxVARIANTSxFORMATS`. Raises ValueError for anything else."""
    kind, _, sizes = name.partition(":")
    numbers = [int(size) for size in sizes.split("x")]
    if kind == "gram" and len(numbers) == 2:
        return gram(*numbers)
    if kind == "chain" and len(numbers) == 3:
        return chain(*numbers)
    raise ValueError(f"{name!r} is neither gram:LAYERSxVARIANTS nor chain:LAYERSxVARIANTSxFORMATS")


def gram(layers: int, variants: int, seed: int = 0) -> Problem:
    """A Gram matrix as objective: the change of the outputs by a variant is in part that of its layer's other variants,
    in part common to all layers, and halves with every bit; bytes limited."""
    random = np.random.default_rng(seed)
    bits = np.linspace(8, 1, variants)
    weights = np.round(random.lognormal(9, 1.2, layers))
    sensitivity = random.lognormal(-2, 1.0, layers)
    of_layer = random.normal(size=(layers, 1, DIRECTIONS))
    own = random.normal(size=(layers, variants, DIRECTIONS))
    common = random.normal(size=DIRECTIONS)
    change = 0.6 * of_layer + 0.7 * own + 0.3 * common * random.normal(size=(layers, 1, 1))
    scale = sensitivity[:, None] * 2.0**-bits * random.lognormal(0, 0.2, (layers, variants))
    flat = (change * scale[:, :, None] / np.sqrt(DIRECTIONS)).reshape(-1, DIRECTIONS)
    products = (flat @ flat.T).reshape(layers, variants, layers, variants)
    builder = _layers(layers, variants)
    builder.add_resource("loss")
    builder.add_resource("bytes", counted=True, limit=float(round(weights.sum() * BITS / 8) + 40 * layers))
    for layer in range(layers):
        builder.add_linear("loss", layer, np.diagonal(products[layer, :, layer]))
        builder.add_linear("bytes", layer, np.round(weights[layer] * bits / 8) + 40)
        for other in range(layer + 1, layers):
            builder.add_pair("loss", layer, other, 2 * products[layer, :, other])
    return builder.build("loss")


def chain(layers: int, variants: int, formats: int, seed: int = 1) -> Problem:
    """A separable loss; bytes, and latency with conversions between neighbours whose formats differ, limited."""
    random = np.random.default_rng(seed)
    bits = np.linspace(8, 1, variants)
    weights, sensitivity = random.lognormal(9, 1.2, layers), random.lognormal(-4, 1.5, layers)
    loss = sensitivity[:, None] * 300 * 4.0**-bits * random.lognormal(0, 0.3, (layers, variants))
    latency = weights[:, None] ** 0.7 * 1e-7 * (0.5 + bits / 16) * random.lognormal(0, 0.25, (layers, variants))
    size = np.round(weights[:, None] * bits / 8) + 40
    form = random.integers(0, formats, (layers, variants))
    builder = _layers(layers, variants)
    builder.add_resource("loss")
    builder.add_resource("bytes", counted=True, limit=float(round(size[:, 0].sum() * 0.4)))
    builder.add_resource("latency", limit=float(latency.min(1).sum() * 1.25))
    for layer in range(layers):
        builder.add_linear("loss", layer, loss[layer])
        builder.add_linear("bytes", layer, size[layer])
        builder.add_linear("latency", layer, latency[layer])
        if layer:
            conversion = random.uniform(0.1, 0.5, (formats, formats)) * latency[layer].mean()
            np.fill_diagonal(conversion, 0)
            builder.add_pair("latency", layer - 1, layer, conversion[form[layer - 1]][:, form[layer]])
    return builder.build("loss")


def _layers(layers: int, variants: int) -> ProblemBuilder:
    builder = ProblemBuilder()
    for layer in range(layers):
        builder.add_group(f"layer {layer}", [f"v{variant}" for variant in range(variants)])
    return builder
