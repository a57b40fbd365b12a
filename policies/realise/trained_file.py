"""`trained.safetensors`: a fine-tuned network as what later work begins with (docs/replanning.md).

A safetensors file: by layer `packed.*`, the layer's bytes in the artifact, and `weight.*` and `bias.*`, float32, what they
were rounded from. Its metadata holds `format` and one JSON object, `state`: variants, ranges, and what the training rests
on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
from safetensors.numpy import save

from bitplan.atomic_file import write_atomically
from bitplan.encodings import EncodedLayer, encoding_of
from bitplan.errors import FileFormatError, UsageError
from bitplan.formats import Range
from bitplan.network import Network
from bitplan.policies.realise.warm import WarmStart
from bitplan.variant import Variant

FORM = "bitplan trained network 3"


@dataclass(frozen=True, slots=True)
class Origin:
    """What a training rests on, as SHA-256 in hexadecimal: the network, its weights in full precision, the policy's
    decision, calibration and test images, and the artifact that came of it."""

    network: str
    weights: str
    policy: str
    calibration: str
    test: str
    artifact: str


def save_trained(path: Path, start: WarmStart, origin: Origin) -> None:
    """Writes atomically. Raises OSError where that fails."""
    tensors: dict[str, Any] = {}
    for name, layer in start.layers.items():
        tensors[f"packed.{name}"] = np.frombuffer(encoding_of(layer.variant).pack(layer), np.uint8)
        for part in ("weight", "bias"):
            tensors[f"{part}.{name}"] = np.ascontiguousarray(start.floats[f"{name}.{part}"], np.float32)
    variants = {
        name: [variant.encoding, variant.activation, list(variant.parameters)]
        for name, variant in start.variants.items()
    }
    ranges = {
        name: {form: [float(held.scale), float(held.zero_point)] for form, held in by_format.items()}
        for name, by_format in start.ranges.items()
    }
    state = {"origin": asdict(origin), "variants": variants, "ranges": ranges}
    write_atomically(path, save(tensors, {"format": FORM, "state": json.dumps(state)}))


def origin_of(path: Path) -> Origin:
    """What the training of a file rests on. Raises FileFormatError."""
    found: Origin = _read(path, lambda file, state: Origin(**state["origin"]))
    return found


def load_trained(path: Path, network: Network) -> WarmStart:
    """The network that is stored there. Raises FileFormatError for a file that is none of ours, UsageError for one of
    another network."""
    found: WarmStart = _read(path, lambda file, state: _start(file, state, network, path))
    return found


def _read(path: Path, read: Any) -> Any:
    try:
        with safetensors.safe_open(path, "np") as file:
            metadata: Mapping[str, str] = file.metadata() or {}
            if metadata.get("format") != FORM:
                raise ValueError(f"its format is {metadata.get('format')!r}, not {FORM!r}")
            return read(file, json.loads(metadata["state"]))
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError, OSError, FileFormatError) as error:
        raise FileFormatError(f"{path} is no trained network ({error}); fine-tune the policy again") from error


def _start(file: Any, state: Mapping[str, Any], network: Network, path: Path) -> WarmStart:
    if set(state["variants"]) != {node.name for node in network.layers}:
        raise UsageError(f"{path} holds other layers than this network has; name the model that was fine-tuned")
    layers: dict[str, EncodedLayer] = {}
    floats = {}
    for node in network.layers:
        encoding, activation, parameters = state["variants"][node.name]
        variant = Variant(encoding, activation, tuple((str(name), float(value)) for name, value in parameters))
        data = file.get_tensor(f"packed.{node.name}").tobytes()
        layers[node.name] = encoding_of(variant).unpack(data, network.weight_shape(node), variant)
        for part in ("weight", "bias"):
            floats[f"{node.name}.{part}"] = np.array(file.get_tensor(f"{part}.{node.name}"), np.float32)
    ranges = {
        name: {form: Range(float(scale), float(zero)) for form, (scale, zero) in by_format.items()}
        for name, by_format in state["ranges"].items()
    }
    return WarmStart(layers, ranges, floats)
