"""Everything a report shows, as one JSON object: what `--json` prints and the page holds. Absent figures are null."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bitplan import __version__
from bitplan.network import Conv2d, Network
from bitplan.optimizer.frontier.file import summary
from bitplan.policies.policy_file import policy_hash
from bitplan.policies.policy_json import plain
from bitplan.report.folder import Folder
from bitplan.report.layers import layer_facts, totals
from bitplan.report.pairs import pair_facts
from bitplan.report.targets import limits_of, target_facts
from bitplan.result import PLANNED
from bitplan.stage_table import STAGE_FIGURES, TITLES
from bitplan.workflow import ARTIFACT

Facts = dict[str, Any]


def report_facts(found: Folder) -> Facts:
    """The facts of one folder. `missing` lists what could not be shown, with the reason."""
    missing = dict(found.missing)
    result = found.result or {}
    layers = layer_facts(found)
    pairs = pair_facts(found, missing)
    facts = {
        "format": "bitplan report",
        "version": 1,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "folder": str(found.path),
        "status": result.get("status", PLANNED),
        "misses": list(result.get("misses", ())),
        "objective": limits_of(found)["objective"],
        "targets": target_facts(found),
        "quantities": quantities(found),
        "worth": _worth(result),
        "layers": layers,
        "totals": totals(found, layers),
        "frontier": _frontier(found),
        "pairs": pairs,
        "networks": _networks(found),
        "recovery": result.get("recovery") or None,
        "stages": _stages(result),
        "solver": _solver(found),
        "provenance": _provenance(found),
        "missing": [{"what": name, "why": why} for name, why in missing.items()],
        "compare": None,
    }
    return dict(plain(facts, "report"))


def quantities(found: Folder) -> list[Facts]:
    """Predicted and measured, side by side; `error` is (measured - predicted) / predicted. Losses are set against each
    other only where both are in the same unit."""
    predicted, result = found.policy.predicted, found.result or {}
    latency, loss = result.get("measured_latency_ms") or {}, result.get("loss") or {}
    scale = found.policy.settings.get("loss_scale")
    rows = [
        ("file_bytes", "file", "B", predicted.get("file_bytes"), result.get("file_bytes")),
        ("latency", "latency", "ms", predicted.get("latency_ms"), latency.get("median")),
        (
            "resident_bytes",
            "memory",
            "B",
            predicted.get("resident_bytes"),
            result.get("resident_bytes") if result.get("file_bytes") is not None else None,
        ),
        ("loss", f"loss ({scale})" if scale else "loss", "", predicted.get("loss"), None),
    ]
    measured_scale = loss.get("measured_scale")
    if measured_scale is not None and measured_scale == scale:
        rows[-1] = (*rows[-1][:4], loss.get("measured"))
    elif measured_scale is not None:
        rows.append(("measured_loss", f"loss ({measured_scale})", "", None, loss.get("measured")))
    return [
        {"key": key, "name": name, "unit": unit, "predicted": p, "measured": m, "error": relative(p, m)}
        for key, name, unit, p, m in rows
    ]


def relative(before: float | None, after: float | None) -> float | None:
    """(after - before) / before; None where that is not known."""
    return None if before is None or after is None or not before else (after - before) / before


def _worth(result: Facts) -> Facts | None:
    """Accuracy where labels are known, else agreement with full precision."""
    if accuracy := result.get("accuracy"):
        drop = accuracy["full_precision"] - accuracy["policy"]
        return {"kind": "accuracy", "value": accuracy["policy"], **accuracy, "drop": drop}
    if (agreement := result.get("agreement")) is not None:
        return {"kind": "agreement", "value": agreement, "drop": 1 - agreement}
    return None


def _frontier(found: Folder) -> Facts | None:
    """The points, and which of them is the policy; where none is, the policy's own place, if its loss is in the same unit."""
    if found.frontier is None:
        return None
    own, predicted = policy_hash(found.policy), found.policy.predicted
    points = found.frontier.points
    chosen = next((p.name for p in points if policy_hash(p.policy) == own), None)
    same = found.frontier.scale == found.policy.settings.get("loss_scale")
    return {
        "loss_scale": found.frontier.scale,
        "finished": found.frontier.finished,
        "chosen": chosen,
        "own": {
            "file_bytes": predicted.get("file_bytes"),
            "latency": predicted.get("latency_ms"),
            "loss": predicted.get("loss") if same else None,
        },
        "points": summary(points),
    }


def _networks(found: Folder) -> list[Facts]:
    """The networks that were carried out: those compared with, then the plan."""
    result = found.result or {}
    rows = [dict(row) for row in result.get("comparison", ())]
    if result.get("file_bytes") is not None:
        rows.append(
            {
                "name": "our plan, fine-tuned" if result.get("finetuning") else "our plan",
                "file_bytes": result["file_bytes"],
                "predicted_latency_ms": result.get("predicted_latency_ms"),
                "measured_latency_ms": (result.get("measured_latency_ms") or {}).get("median"),
                "loss": result["loss"].get("measured"),
                "agreement": result.get("agreement"),
                "accuracy": (result.get("accuracy") or {}).get("policy"),
            }
        )
    for row in rows:
        row["error"] = relative(row["predicted_latency_ms"], row["measured_latency_ms"])
    return rows


def _stages(result: Facts) -> list[Facts] | None:
    """What the policy was from planning to the last training, in that order; None where it was never trained."""
    found = (result.get("replanning") or {}).get("stages") or result.get("finetuning")
    if not found:
        return None
    names = [name for name in TITLES if name in found]
    return [{"name": name, "title": TITLES[name], **{key: found[name][key] for key in STAGE_FIGURES}} for name in names]


def _solver(found: Folder) -> Facts:
    certificate = asdict(found.policy.certificate)
    settings = found.policy.settings
    units = {"latency": "s", "bytes": "B", "memory": "B", "loss": settings.get("loss_scale") or ""}
    return {
        **certificate,
        "unit": units[found.policy.targets.objective],
        "seed": settings.get("seed"),
        "time_limit": settings.get("time_limit"),
        "solved_for": settings.get("solved_for"),
    }


def _provenance(found: Folder) -> Facts:
    artifact = found.artifact
    machine = found.device.fingerprint if found.device else found.times.machine if found.times else None
    return {
        "bitplan": __version__,
        "artifact": None
        if artifact is None
        else {"file": ARTIFACT, "bytes": len(artifact), "sha256": hashlib.sha256(artifact).hexdigest()},
        "decision": policy_hash(found.policy).hex(),
        "hashes": dict(found.policy.hashes),
        "machine": machine and machine.to_json(),
        "profiled": found.device.recorded if found.device else None,
        "settings": {k: v for k, v in found.policy.settings.items() if k != "estimates"},
        "estimator": found.loss.estimator if found.loss else None,
        "network": found.network and _network(found.network),
        "measured_latency_ms": (found.result or {}).get("measured_latency_ms"),
    }


def _network(network: Network) -> Facts:
    weights = sum(network.weight_shape(node).count for node in network.layers)
    convolutions = sum(isinstance(node.op, Conv2d) for node in network.layers)
    return {"layers": len(network.layers), "convolutions": convolutions, "weights": weights}


def folder_name(facts: Facts) -> str:
    """The last part of the folder's path, by which it is called in a comparison."""
    return Path(facts["folder"]).resolve().name
