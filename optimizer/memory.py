"""Memory as resources: resident weights plus the values alive at one execution step, one resource per step that can
be the fullest. The arena can be no smaller than the fullest step; packing.py sees to what
the arena planner makes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from bitplan.encodings import encoding_of
from bitplan.kernels.arena import kept_bytes, lifetimes
from bitplan.network import Network, ScaleShift
from bitplan.optimizer.builder import ProblemBuilder
from bitplan.optimizer.value_formats import ValueFormats
from bitplan.variant import Variant

MEMORY = "memory"


def resident_weight_bytes(network: Network, variants: Mapping[str, Variant]) -> int:
    """Bytes of weights in memory under one variant per layer, each on the kernel that keeps most, scales and shifts of
    separate batch norms included."""
    layers = sum(
        encoding_of(variants[node.name]).resident_bytes(network.weight_shape(node), variants[node.name])
        for node in network.layers
    )
    return layers + shift_bytes(network)


def resident_costs(network: Network, allowed: Mapping[str, Sequence[Variant]]) -> dict[str, NDArray[np.int64]]:
    """Bytes of each layer's weights in memory, one number per variant allowed."""
    found = {}
    for layer, variants in allowed.items():
        shape = network.weight_shape(network.by_name[layer])
        found[layer] = np.array([encoding_of(v).resident_bytes(shape, v) for v in variants], np.int64)
    return found


def shift_bytes(network: Network) -> int:
    """Bytes of the scales and shifts of separate batch norms: two float32 per channel."""
    return sum(8 * node.shape[0 if len(node.shape) == 3 else -1] for node in network if isinstance(node.op, ScaleShift))


def add_memory(
    builder: ProblemBuilder,
    network: Network,
    allowed: Mapping[str, Sequence[Variant]],
    layers: Mapping[str, int],
    values: ValueFormats,
    batch: int,
    limit: int | None,
) -> None:
    """Adds the resources `memory at <node>` of the target `memory`, in bytes for `batch` images."""
    starts = np.concatenate([[0], np.cumsum([len(group.options) for group in builder.groups])]).astype(np.int64)
    for step, (constant, costs) in _fullest(network, values, starts, batch).items():
        name = f"{MEMORY} at {network.nodes[step].name}"
        builder.add_resource(name, target=MEMORY, unit="B", counted=True, limit=limit)
        builder.add_constant(name, constant + shift_bytes(network))
        for group in range(len(builder.groups)):
            builder.add_linear(name, group, costs[starts[group] : starts[group + 1]])
        for layer, costs_of_layer in resident_costs(network, allowed).items():
            builder.add_linear(name, layers[layer], costs_of_layer)


def _fullest(
    network: Network, values: ValueFormats, starts: NDArray[np.int64], batch: int
) -> dict[int, tuple[int, NDArray[np.int64]]]:
    """By step, the bytes of live values (a constant, and one cost per option of all groups) for the steps that no
    other step exceeds whatever is chosen."""
    alive = lifetimes(network)
    steps: list[tuple[int, int, NDArray[np.int64]]] = []
    for step in range(len(network.nodes)):
        constant, costs = 0, np.zeros(starts[-1], np.int64)
        for node in network:
            first, last = alive[node.name]
            if not first <= step <= last:
                continue
            kept = values.kept[node.name]
            sizes = [batch * kept_bytes(node.shape, formats) for formats in kept.formats]
            if kept.group is None:
                constant += sizes[0]
            else:
                costs[starts[kept.group] : starts[kept.group + 1]] += sizes
        steps.append((step, constant, costs))
    kept_steps: list[tuple[int, int, NDArray[np.int64]]] = []
    for step, constant, costs in sorted(steps, key=lambda item: (-item[1] - int(item[2].sum()), item[0])):
        if not any(_never_above(constant - other, costs - others, starts) for _, other, others in kept_steps):
            kept_steps.append((step, constant, costs))
    return {step: (constant, costs) for step, constant, costs in sorted(kept_steps, key=lambda item: item[0])}


def _never_above(constant: int, costs: NDArray[np.int64], starts: NDArray[np.int64]) -> bool:
    """Whether a difference of costs is at most zero whatever is chosen."""
    if len(costs) == 0:
        return constant <= 0
    return bool(constant + np.maximum.reduceat(costs, starts[:-1]).sum() <= 0)
