"""The figures of a result that the list of runs shows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

STATUSES = ("met", "missed", "planned")
LARGEST = 1e300
"""No figure reaches it; comparing with it also finds those that are not finite, and integers that floats cannot hold."""


def is_figure(value: Any) -> bool:
    """Whether it is a number that can be shown."""
    return isinstance(value, int | float) and abs(value) < LARGEST


def figures_of(result: Any) -> dict[str, Any]:
    """From what a command's `--json` prints: `bytes`, `ms`, `accuracy` or `agreement`, `loss`, and whether they were
    `measured`; of a study, its best trial's; of a frontier, the number of its points. Empty for other results."""
    found = _figures(result) if isinstance(result, Mapping) else {}
    return {name: value for name, value in found.items() if is_figure(value)}


def _figures(result: Mapping[str, Any]) -> dict[str, Any]:
    if result.get("status") in STATUSES:
        return _of_policy(result)
    if isinstance(result.get("points"), list):
        return {"points": len(result["points"])}
    if "beats_planner" in result:
        return _of_study(result)
    return {}


def _of_policy(result: Mapping[str, Any]) -> dict[str, Any]:
    loss, latency, accuracy = (_part(result, name) for name in ("loss", "measured_latency_ms", "accuracy"))
    measured = result.get("file_bytes") is not None
    return {
        "measured": measured,
        "bytes": result.get("file_bytes" if measured else "predicted_file_bytes"),
        "ms": latency.get("median") if measured else result.get("predicted_latency_ms"),
        "accuracy": accuracy.get("policy"),
        "agreement": result.get("agreement"),
        "loss": loss.get("measured" if measured else "predicted"),
    }


def _of_study(result: Mapping[str, Any]) -> dict[str, Any]:
    trials = _part(result, "trials")
    best = result.get("best") or next(iter(result.get("front") or ()), None)
    found: dict[str, Any] = {"trials": trials.get("complete", 0) + trials.get("pruned", 0)}
    if isinstance(best, Mapping):
        names = {"bytes": "bytes", "ms": "latency", "loss": "loss"}
        found |= {name: best.get(key) for name, key in names.items()}
    return found


def _part(result: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = result.get(name)
    return value if isinstance(value, Mapping) else {}
