"""Which bits another tool gives each layer, as variants of ours (docs/interchange.md).

Read are two kinds of JSON file:

- `mct` (Sony's Model Compression Toolkit): bits of the weights by the names of its graph's nodes,
  {"layer1_0_conv1_bn": 4, ...}; any other tool's {layer: bits} does too;
- `modelopt` (NVIDIA's): the configuration of `mtq.get_auto_quantize_config`, or one for `mtq.quantize`, whose entries
  {"quantizer_name": "*weight_quantizer", "enable": true, "cfg": {"num_bits": 8}} hold in order, the last that fits counting.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from bitplan.errors import FileFormatError, UsageError
from bitplan.suggest import suggestion
from bitplan.variant import FLOAT32, U8, Variant

SOURCES = ("mct", "modelopt")
ENCODINGS = {1: "binary", 2: "int2", 3: "int3", 4: "int4", 5: "int5", 6: "int6", 8: "int8"}
WIDER = "int8"
"""What 7 bits become."""
FLOATING = (16, 32)
"""Bits that mean no quantisation."""
ACTIVATIONS = {1: "u1", 2: "u2", 4: "u4", 8: "u8"}
SHOWN = 8


@dataclass(frozen=True)
class Assignments:
    """Variants by layer, and what could not be taken as it stands: sentences for people, names of the file that are no layer."""

    variants: Mapping[str, Variant]
    notes: tuple[str, ...]
    unknown: tuple[str, ...]


def read_assignments(
    path: Path, source: str, layers: Sequence[str], rest: Variant | None = None, grouped: Sequence[str] = ()
) -> Assignments:
    """What a file of one of SOURCES gives the network's layers. `rest`: what layers become that the file does not speak of
    or gives a format that we do not have; without it, they are an error. `grouped`: layers that read 8 bits or floats only.
    Raises FileFormatError for another kind of file, UsageError, naming the layers, for what cannot be taken over."""
    if source not in SOURCES:
        raise UsageError(f"--from is {source!r}; it must be one of {', '.join(SOURCES)}")
    content = _parsed(path)
    found, unknown = _of_mct(content, layers, path) if source == "mct" else _of_modelopt(content, layers, path)
    if not found:
        raise UsageError(
            f"{path} names no layer of the network: it names {_listed(list(unknown))}, the network {_listed(layers)}; "
            "is it of the same network?"
        )
    taken = _Taken(rest, grouped)
    variants = {name: taken.variant(name, found.get(name)) for name in layers}
    if taken.problems:
        raise UsageError(
            f"{path}: {'; '.join(taken.problems[:SHOWN])}{' and more' if len(taken.problems) > SHOWN else ''}; say what such "
            "layers become with --rest, such as --rest int8"
        )
    return Assignments(variants, tuple(taken.notes), unknown)


@dataclass(frozen=True)
class Given:
    """What a tool gives a layer: bits of weight and input. A weight that stays as it is has 32; None: a format of its own,
    which `said` describes."""

    weight: int | None
    activation: int | None = 8
    said: str = ""


class _Taken:
    def __init__(self, rest: Variant | None, grouped: Sequence[str]) -> None:
        self.rest, self.grouped = rest, frozenset(grouped)
        self.problems: list[str] = []
        self.notes: list[str] = []

    def variant(self, name: str, given: Given | None) -> Variant:
        if given is None:
            return self._rest(name, "the file does not speak of it")
        if given.weight in FLOATING:
            if given.weight == 16:
                self.notes.append(f"{name}: 16 bits become float32")
            return FLOAT32
        encoding = ENCODINGS.get(given.weight or 0)
        if encoding is None and given.weight == 7:
            encoding = WIDER
            self.notes.append(f"{name}: {given.weight} bits become {WIDER}")
        if encoding is None:
            return self._rest(
                name, f"its weights are {given.said or f'of {given.weight} bits'}, for which there is no encoding"
            )
        return Variant(encoding, self._activation(name, given))

    def _activation(self, name: str, given: Given) -> str:
        form = ACTIVATIONS.get(given.activation or 0, U8)
        if form != U8 and name in self.grouped:
            self.notes.append(f"{name}: a layer with groups reads 8 bits here, not {given.activation}")
            return U8
        if given.activation not in ACTIVATIONS:
            what = "floats" if given.activation is None else f"{given.activation} bits"
            self.notes.append(
                f"{name}: its input of {what} becomes 8 bits, which integer weights are multiplied with here"
            )
        return form

    def _rest(self, name: str, reason: str) -> Variant:
        if self.rest is None:
            self.problems.append(f"layer {name!r}: {reason}")
            return FLOAT32
        self.notes.append(f"{name}: {reason}; it becomes {self.rest}")
        return self.rest


def _parsed(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise FileFormatError(f"cannot read {path}: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise FileFormatError(f"{path} is not a JSON file: {error}; write it as docs/interchange.md says") from None


def _of_mct(content: Any, layers: Sequence[str], path: Path) -> tuple[dict[str, Given], tuple[str, ...]]:
    if not isinstance(content, dict) or not all(type(bits) is int for bits in content.values()):
        raise FileFormatError(f'{path} is not of the form {{"layer": bits, ...}}; write it as docs/interchange.md says')
    by_spelling: dict[str, str] = {}
    for name in layers:
        for spelling in spellings(name):
            if by_spelling.setdefault(spelling, name) != name:
                raise UsageError(
                    f"layers {by_spelling[spelling]!r} and {name!r} have the same name {spelling!r} in {path}; rename one"
                )
    found: dict[str, Given] = {}
    unknown = []
    for node, bits in content.items():
        name = node if node in layers else by_spelling.get(node, "")
        if not name:
            unknown.append(node)
        elif name in found:
            raise UsageError(f"{path}: {node!r} is layer {name!r}, which stands there under another name too; keep one")
        else:
            found[name] = Given(bits)
    return found, tuple(unknown)


def spellings(layer: str) -> tuple[str, ...]:
    """What MCT calls a layer: the path with underscores, and `_bn` behind it where it folded a batch norm in."""
    name = re.sub(r"\W", "_", layer)
    return name, f"{name}_bn"


def _of_modelopt(content: Any, layers: Sequence[str], path: Path) -> tuple[dict[str, Given], tuple[str, ...]]:
    entries = content.get("quant_cfg") if isinstance(content, dict) else None
    if isinstance(entries, dict):  # of versions that had one object
        entries = [{"quantizer_name": name, "cfg": given} for name, given in entries.items() if isinstance(given, dict)]
    if not isinstance(entries, list) or not all(
        isinstance(e, dict) and isinstance(e.get("quantizer_name"), str) for e in entries
    ):
        raise FileFormatError(
            f'{path} has no "quant_cfg" with quantizers; write mtq.get_auto_quantize_config(...) as docs/interchange.md says'
        )
    found = {}
    for name in layers:
        weight, activation = (_last(entries, f"{name}.{kind}_quantizer") for kind in ("weight", "input"))
        if weight is not _UNSAID:
            bits, said = _bits(weight)
            found[name] = Given(
                bits, 8 if activation is _UNSAID else _bits(activation)[0] if activation else None, said
            )
    return found, tuple(_no_layers(entries, layers))


_UNSAID: Any = object()


def _last(entries: Sequence[Mapping[str, Any]], quantizer: str) -> Any:
    """The configuration of a quantizer, None where it is off, _UNSAID where no entry names it."""
    state: Any = _UNSAID
    for entry in entries:
        if not fnmatchcase(quantizer, entry["quantizer_name"]) or entry.get("parent_class"):
            continue
        cfg = entry.get("cfg")
        on = entry.get("enable", cfg.get("enable", True) if isinstance(cfg, dict) else True)
        if not on:
            state = None
        elif cfg is not None or state in (None, _UNSAID):
            state = cfg or {}
    return state


def _bits(cfg: Any) -> tuple[int | None, str]:
    """Bits of a quantizer's configuration and, where they are no integer, what they are."""
    if cfg is None:
        return 32, ""
    bits = cfg.get("num_bits", 8) if isinstance(cfg, dict) else cfg
    if type(bits) is int:
        return bits, ""
    if isinstance(bits, list) and len(bits) == 2 and all(type(part) is int for part in bits):
        return None, f"floats of {1 + sum(bits)} bits"
    return None, f"of the format {json.dumps(bits)}"


def _no_layers(entries: Sequence[Mapping[str, Any]], layers: Sequence[str]) -> Iterator[str]:
    """Modules that are named in full and are no layers."""
    seen = set(layers)
    for entry in entries:
        module, _, quantizer = entry["quantizer_name"].rpartition(".")
        if quantizer == "weight_quantizer" and module and not set("*?[") & set(module) and module not in seen:
            seen.add(module)
            yield module


def _listed(names: Sequence[str]) -> str:
    return (
        ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
        if names
        else "none"
    )


def said_of_unknown(unknown: Sequence[str], layers: Sequence[str]) -> str:
    """A sentence on names of the file that are no layer."""
    hint = suggestion(unknown[0], layers, "its layers")
    return f"no layers of the network, left out: {_listed(unknown)} ({hint})"
