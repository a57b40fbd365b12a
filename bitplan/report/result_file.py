"""Reads what the main job left in `result.json`, as far as a report shows it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema

from bitplan.errors import FileFormatError
from bitplan.policies.policy import Policy
from bitplan.policies.policy_json import plain
from bitplan.stage_table import STAGE_FIGURES, TITLES
from bitplan.targets import OBJECTIVES

NUMBER = {"type": ["number", "null"]}
TEXT = {"type": "string"}


def _object(required: dict[str, Any], **optional: Any) -> dict[str, Any]:
    return {"type": "object", "required": list(required), "properties": {**required, **optional}}


def _listed(item: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": item}


LATENCY = _object({key: {"type": "number"} for key in ("median", "low", "high", "drift", "median_of_all_runs")})
NETWORK = _object(
    {
        "name": TEXT,
        **dict.fromkeys(
            ("file_bytes", "predicted_latency_ms", "measured_latency_ms", "loss", "agreement", "accuracy"), NUMBER
        ),
    }
)
STAGE = _object(dict.fromkeys(STAGE_FIGURES, NUMBER))
STAGES = dict.fromkeys(TITLES, STAGE)
"""What a policy was at each stage of its life."""
LIMITS = ("latency_ms", "bytes", "memory_bytes", "loss", "max_drop", "full_precision_weights")
TARGETS = _object({**dict.fromkeys(LIMITS, NUMBER), "objective": {"enum": list(OBJECTIVES)}})
SCHEMA = _object(
    {
        "status": {"enum": ["met", "missed", "planned"]},
        "misses": _listed(TEXT),
        "targets": TARGETS,
        "file_bytes": NUMBER,
        "resident_bytes": NUMBER,
        "predicted_latency_ms": NUMBER,
        "measured_latency_ms": {"anyOf": [{"type": "null"}, LATENCY]},
        "loss": _object({"measured": NUMBER, "measured_scale": {"type": ["string", "null"]}}),
        "agreement": NUMBER,
        "layers": _listed(_object({"name": TEXT, "encoding": TEXT})),
    },
    accuracy=_object(
        {"full_precision": {"type": "number"}, "policy": {"type": "number"}, "standard_error": NUMBER, "images": NUMBER}
    ),
    recovery=_listed(_object({"step": TEXT, "held_back_loss": {"type": "number"}, "kept": {"type": "boolean"}})),
    comparison=_listed(NETWORK),
    finetuning={"type": "object", "properties": STAGES},
    replanning=_object({}, stages={"type": "object", "properties": STAGES}),
)


def read_result(path: Path, policy: Policy) -> dict[str, Any]:
    """The result, numbers that are not finite as None. Raises FileFormatError for what is not a result, and for that of
    another policy: `optimize plan` writes a policy beside an older result, and policies are edited by hand."""
    try:
        content = plain(json.loads(path.read_bytes()))
        jsonschema.validate(content, SCHEMA)
    except jsonschema.ValidationError as error:
        place = ".".join(map(str, error.absolute_path)) or "the file"
        raise FileFormatError(
            f"{path} is not a result of bitplan: {place}: {error.message[:200]}; realise the policy anew"
        ) from None
    except ValueError as error:
        raise FileFormatError(f"{path} is not a result of bitplan: {error}; realise the policy anew") from None
    chosen = {layer["name"]: layer["encoding"] for layer in content["layers"]}
    if chosen != {layer.name: str(layer.variant) for layer in policy.layers}:
        raise FileFormatError(
            f"{path} is of another policy than the one beside it, so what was measured is left out; carry the policy out "
            f"with `optimize realise`"
        )
    return dict(content)
