"""The facts of single layers: what was chosen, predicted and, where they were timed, measured."""

from __future__ import annotations

from math import fsum
from typing import Any

from bitplan.network import Conv2d, Network
from bitplan.report.folder import Folder


def layer_facts(found: Folder) -> list[dict[str, Any]]:
    """One row per layer, in the network's order. `loss_share` is the layer's share of the predicted loss; below zero where
    the layer makes up for others."""
    loss = found.policy.predicted.get("loss")
    estimates = found.policy.settings.get("estimates") or {}
    measured = found.times.steps_ms if found.times else {}
    rows = []
    for layer in found.policy.layers:
        weights = found.network and found.network.weight_shape(found.network.by_name[layer.name]).count
        rows.append(
            {
                "name": layer.name,
                "operation": found.network and _operation(found.network, layer.name),
                "weights": weights,
                "encoding": str(layer.variant),
                "kernel": layer.kernel,
                "bits_per_weight": 8 * layer.bytes / weights if weights else None,
                "bytes": layer.bytes,
                "predicted_ms": layer.latency_ms,
                "estimated": layer.name in estimates.get("steps", ()),
                "measured_ms": measured.get(layer.name),
                "loss": layer.loss,
                "loss_share": layer.loss / loss if loss and layer.loss is not None else None,
            }
        )
    return rows


def totals(found: Folder, layers: list[dict[str, Any]]) -> dict[str, Any]:
    """Sums over the layers, and what the rest of the network (operations without weights, the file's header and graph)
    adds to them."""
    predicted = found.policy.predicted
    sums = {
        key: _sum(row[key] for row in layers) for key in ("bytes", "weights", "predicted_ms", "measured_ms", "loss")
    }
    measured = fsum(found.times.steps_ms.values()) if found.times else None
    return {
        **sums,
        "bits_per_weight": 8 * sums["bytes"] / sums["weights"] if sums["weights"] else None,
        "rest_bytes": _difference(predicted.get("file_bytes"), sums["bytes"]),
        "rest_predicted_ms": _difference(predicted.get("latency_ms"), sums["predicted_ms"]),
        "rest_measured_ms": _difference(measured, sums["measured_ms"]),
        "timed_ms": found.times.latency_ms if found.times else None,
    }


def _operation(network: Network, name: str) -> str:
    node, shape = network.by_name[name], network.weight_shape(network.by_name[name])
    if not isinstance(node.op, Conv2d):
        return f"linear {shape.in_channels} to {shape.out_channels}"
    kind = "depthwise" if shape.depthwise else "grouped" if shape.groups > 1 else "conv"
    return f"{kind} {shape.kernel[0]}x{shape.kernel[1]}, {shape.in_channels} to {shape.out_channels}"


def _sum(values: Any) -> Any:
    """The sum; None where a value is unknown."""
    listed = list(values)
    if not listed or any(value is None for value in listed):
        return None
    return fsum(listed) if any(isinstance(value, float) for value in listed) else sum(listed)


def _difference(whole: Any, part: Any) -> Any:
    return None if whole is None or part is None else whole - part
