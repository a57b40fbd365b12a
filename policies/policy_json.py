"""The JSON side of the policy file: plain values, the schema, and a layout with one line per layer."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, cast

import jsonschema
import numpy as np

from bitplan.errors import UsageError
from bitplan.suggest import suggestion


@cache
def schema() -> dict[str, Any]:
    """The JSON schema of the newest version."""
    found: dict[str, Any] = json.loads((resources.files("bitplan.policies") / "schema.json").read_text("utf-8"))
    return found


def plain(value: Any, where: str = "policy") -> Any:
    """The same value in JSON's own types: numpy scalars and paths converted, numbers that are not finite become None.
    Raises UsageError, naming the place, for what JSON cannot hold."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, f"{where}[{i}]") for i, item in enumerate(value)]
    raise UsageError(f"{where} is a {type(value).__name__}, which a policy file cannot hold; give text or numbers")


def checked(content: dict[str, Any], source: str) -> dict[str, Any]:
    """The content itself if it follows the schema. Raises UsageError with the first rule broken, naming the layer."""
    validator = jsonschema.Draft202012Validator(schema())
    error = jsonschema.exceptions.best_match(validator.iter_errors(content))
    if error is None:
        return content
    path = list(error.absolute_path)
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")
    if len(path) > 1 and path[0] == "layers":
        entry = content["layers"][path[1]]
        if isinstance(entry, dict) and isinstance(entry.get("name"), str):
            place = f"layer {entry['name']!r} ({place})"
    raise UsageError(f"{source}: {f'{place}: ' if place else ''}{_rule(error)} (see FORMAT.md of bitplan.policies)")


def _rule(error: jsonschema.ValidationError) -> str:
    if error.validator == "additionalProperties" and isinstance(error.instance, dict):
        known = list(error.schema.get("properties", {})) if isinstance(error.schema, Mapping) else []
        unknown = next(key for key in error.instance if key not in known)
        return f"unknown key {unknown!r}; {suggestion(unknown, known, 'the keys here')}"
    if error.validator == "required":
        required = cast(list[str], error.validator_value)
        missing = next(key for key in required if key not in cast(dict[str, Any], error.instance))
        return f"the key {missing!r} is missing; add it"
    return error.message if len(error.message) <= 300 else f"{error.message[:300]}..."


def one_line_per_layer(content: dict[str, Any]) -> str:
    """Pretty JSON whose layers take one line each, so that a policy reads, edits and compares like a table."""
    lines = [f"    {json.dumps(layer, allow_nan=False)}" for layer in content["layers"]]
    head = {key: value for key, value in content.items() if key != "layers"}
    text = json.dumps(head, indent=2, allow_nan=False).removesuffix("\n}")
    layers = ",\n".join(lines)
    return f'{text},\n  "layers": [\n{layers}\n  ]\n}}\n'
