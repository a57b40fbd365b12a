"""Which targets were set, and whether they are met: as measured, or as predicted where nothing was carried out."""

from __future__ import annotations

from typing import Any

from bitplan.report.folder import Folder
from bitplan.result import targets_json

MEASURED, PREDICTED = "measured", "predicted"


def limits_of(found: Folder) -> dict[str, Any]:
    """The targets that the result was judged by, which may be others than those of the policy that was carried out."""
    return dict(found.result["targets"]) if found.result else targets_json(found.policy.targets)


def target_facts(found: Folder) -> list[dict[str, Any]]:
    """One row per limit: `limit` and `reached` in `unit`, `margin` = (limit - reached) / limit, and by what it was judged.
    A limit on the loss, and one on full-precision weights, hold for what the plan predicts."""
    limits, predicted, result = limits_of(found), found.policy.predicted, found.result or {}
    carried_out = result.get("file_bytes") is not None
    latency = (result.get("measured_latency_ms") or {}).get("median")
    weights = limits["full_precision_weights"]
    if weights is not None and weights < 1:
        total = found.network and sum(found.network.weight_shape(node).count for node in found.network.layers)
        weights = weights * total if total else None
    rows = [
        _row("latency", "ms", limits["latency_ms"], latency, predicted.get("latency_ms")),
        _row("file", "B", limits["bytes"], result.get("file_bytes"), predicted.get("file_bytes")),
        _row(
            "memory",
            "B",
            limits["memory_bytes"],
            result.get("resident_bytes") if carried_out else None,
            predicted.get("resident_bytes"),
        ),
        _row("loss", "", limits["loss"], None, predicted.get("loss")),
        _row("drop", "%", limits["max_drop"], _drop(result), None),
        _row("full-precision weights", "weights", weights, None, predicted.get("full_precision_weights")),
    ]
    return [row for row in rows if row["limit"] is not None]


def _row(name: str, unit: str, limit: Any, measured: Any, predicted: Any) -> dict[str, Any]:
    reached = predicted if measured is None else measured
    known = limit is not None and reached is not None
    return {
        "name": name,
        "unit": unit,
        "limit": limit,
        "reached": reached,
        "basis": None if reached is None else PREDICTED if measured is None else MEASURED,
        "met": reached <= limit if known else None,
        "margin": (limit - reached) / limit if known and limit else None,
    }


def _drop(result: dict[str, Any]) -> float | None:
    if accuracy := result.get("accuracy"):
        return float(accuracy["full_precision"] - accuracy["policy"])
    agreement = result.get("agreement")
    return None if agreement is None else 1 - agreement
