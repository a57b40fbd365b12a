"""The policy file (FORMAT.md): written, read, upgraded and checked against a network."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from bitplan.atomic_file import write_atomically
from bitplan.compute import kernels_for
from bitplan.errors import FileFormatError, UsageError
from bitplan.policies.policy import Certificate, LayerPolicy, Policy
from bitplan.policies.policy_json import checked, one_line_per_layer, plain
from bitplan.policies.validate import validate_against
from bitplan.policies.variants import check_kernel, check_variant
from bitplan.targets import Targets
from bitplan.variant import Variant, usual_activation

__all__ = ["VERSION", "parse_policy", "policy_hash", "policy_text", "read_policy", "validate_against", "write_policy"]

FORMAT = "bitplan policy"
VERSION = 2
UPGRADES: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {
    1: lambda content: content,  # version 2 added formats below u8 and kernels, which older files do not name
}
"""By version: turns a file of that version into one of the next. Add the step and raise VERSION together."""

TARGET_KEYS = {
    "latency": "latency_seconds",
    "bytes": "bytes",
    "memory": "memory_bytes",
    "loss": "loss",
    "max_drop": "max_drop",
    "full_precision_weights": "full_precision_weights",
}


def policy_hash(policy: Policy) -> bytes:
    """SHA-256 (32 bytes) of the decision alone: per layer name, encoding, activation format, parameters and, where it is
    not the first that can run the variant, the kernel, whatever the order of the layers. Predictions, targets,
    certificate, hashes and settings do not count (FORMAT.md)."""
    rows: list[list[object]] = []
    for name, layer in sorted({layer.name: layer for layer in policy.layers}.items()):
        parameters = sorted((key, float(value)) for key, value in layer.variant.parameters)
        kernel = [] if layer.kernel == kernels_for(layer.variant)[0] else [layer.kernel]
        rows.append([name, layer.variant.encoding, layer.variant.activation, parameters, *kernel])
    text = json.dumps({"version": 1, "layers": rows}, separators=(",", ":"))
    return hashlib.sha256(text.encode()).digest()


def write_policy(path: Path, policy: Policy) -> None:
    """Writes the file atomically. Numbers that are not finite become null where null means unknown.

    Raises UsageError for a policy that `read_policy` would refuse, and OSError when the file cannot be written."""
    write_atomically(path, policy_text(policy, str(path)).encode())


def policy_text(policy: Policy, source: str) -> str:
    """The text of a policy file; `source` names it in errors. Raises UsageError as `write_policy`."""
    content = checked(plain(_content(policy)), source)
    _layers(content, source)
    return one_line_per_layer(content)


def read_policy(path: Path) -> Policy:
    """Reads a policy file, hand-edited or not; whether it fits a network is `validate_against`'s question.

    A file whose layers were edited since it was written has certificate `given` and no predictions, neither for the
    whole nor for single layers.
    Raises FileFormatError for what is not a policy file or of a newer version, UsageError for a rule that is broken
    (naming file, layer and rule)."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise FileFormatError(
            f"cannot read the policy {path}: {error.strerror or error}"
            "; check the path, or make one with `optimize plan`"
        ) from None
    return parse_policy(text, str(path))


def parse_policy(text: bytes, source: str) -> Policy:
    """The policy that a policy file's text describes; `source` names it in errors. Raises as `read_policy`."""
    content = checked(_upgraded(_parsed(text, source), source), source)
    policy = Policy(
        _layers(content, source),
        _targets(content.get("targets", {})),
        content.get("predicted", {}),
        Certificate(**content.get("certificate", {})),
        content.get("hashes", {}),
        content.get("settings", {}),
    )
    if policy_hash(policy).hex() != content.get("decision"):
        layers = tuple(replace(layer, latency_ms=None, loss=None) for layer in policy.layers)
        return replace(policy, layers=layers, predicted={}, certificate=Certificate())
    return policy


def _content(policy: Policy) -> dict[str, Any]:
    targets = {TARGET_KEYS[key]: getattr(policy.targets, key) for key in TARGET_KEYS}
    return {
        "format": FORMAT,
        "version": VERSION,
        "decision": policy_hash(policy).hex(),
        "targets": {k: v for k, v in targets.items() if v is not None} | {"objective": policy.targets.objective},
        "predicted": dict(policy.predicted),
        "certificate": {key: getattr(policy.certificate, key) for key in Certificate.__slots__},
        "hashes": dict(policy.hashes),
        "settings": dict(policy.settings),
        "layers": [_layer_content(layer) for layer in policy.layers],
    }


def _layer_content(layer: LayerPolicy) -> dict[str, Any]:
    variant = layer.variant
    check_variant(variant)
    check_kernel(variant, layer.kernel)
    content: dict[str, Any] = {"name": layer.name, "encoding": variant.encoding}
    if variant.activation != usual_activation(variant.encoding):
        content["activation"] = variant.activation
    if variant.parameters:
        content["parameters"] = dict(variant.parameters)
    if layer.kernel != kernels_for(variant)[0]:
        content["kernel"] = layer.kernel
    content["expected"] = {"bytes": layer.bytes, "latency_ms": layer.latency_ms, "loss": layer.loss}
    return content


def _parsed(text: bytes, path: str) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            doubled = next(key for i, (key, _) in enumerate(pairs) if key in dict(pairs[:i]))
            raise FileFormatError(f"{path}: the key {doubled!r} stands twice in one object; keep one of them")
        return found

    def finite(number: str) -> float:
        value = float(number)
        if value - value != 0:
            raise FileFormatError(f"{path}: {number} is not a finite number; write null for what is not known")
        return value

    try:
        content = json.loads(text.decode("utf-8"), object_pairs_hook=unique, parse_float=finite, parse_constant=finite)
    except json.JSONDecodeError as error:
        raise FileFormatError(
            f"{path} is not valid JSON: {error.msg} in line {error.lineno}, column {error.colno}; correct it there"
        ) from None
    except (UnicodeDecodeError, RecursionError, ValueError) as error:
        raise FileFormatError(
            f"{path} is not a JSON text: {error}; name a policy file, as `optimize plan` writes it"
        ) from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise FileFormatError(
            f'{path} is not a policy file: it has no "format": "{FORMAT}"; name one, as `optimize plan` writes it'
        )
    return content


def _upgraded(content: dict[str, Any], path: str) -> dict[str, Any]:
    version = content.get("version")
    if type(version) is not int or version < 1:
        raise FileFormatError(f"{path}: the version is {version!r}; it must be a whole number from 1 to {VERSION}")
    if version > VERSION:
        raise FileFormatError(
            f"{path} is a policy of version {version}; this bitplan reads up to version {VERSION}: install a newer one"
        )
    for step in range(version, VERSION):
        content = UPGRADES[step](content) | {"version": step + 1}
    return content


def _targets(content: dict[str, Any]) -> Targets:
    names = {key: name for name, key in TARGET_KEYS.items()} | {"objective": "objective"}
    return Targets(**{names[key]: value for key, value in content.items()})


def _layers(content: dict[str, Any], source: str) -> tuple[LayerPolicy, ...]:
    layers: dict[str, LayerPolicy] = {}
    for number, entry in enumerate(content["layers"]):
        name, encoding = entry["name"], entry["encoding"]
        if name in layers:
            raise UsageError(
                f"{source}: layer {name!r} stands there twice (again as layers[{number}]); keep one of them"
            )
        try:
            activation = entry.get("activation") or usual_activation(encoding)
            parameters = tuple((key, float(value)) for key, value in entry.get("parameters", {}).items())
            variant = check_variant(Variant(encoding, activation, parameters))
            kernel = check_kernel(variant, entry.get("kernel") or kernels_for(variant)[0])
        except UsageError as error:
            raise UsageError(f"{source}: layer {name!r}: {error}") from None
        expected = entry.get("expected", {})
        layers[name] = LayerPolicy(
            name, variant, expected.get("bytes", 0), expected.get("latency_ms"), expected.get("loss"), kernel
        )
    return tuple(layers.values())
