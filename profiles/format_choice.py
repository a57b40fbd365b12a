"""Which choices of layers decide in which format a value is written.

`bitplan.formats.derive_formats` says which formats follow from a whole policy. This is its inverse, value by value:
through operations without weights the question "is this value kept in u8 only?" runs on until it meets layers, and
the answer is yes exactly if all of them choose u8 and nothing on the way insists on f32.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bitplan.network import Network, Softmax
from bitplan.variant import F32, U8

LayerFormats = Mapping[str, str]
"""Activation formats that some layers have to choose, by layer."""


@dataclass(frozen=True, slots=True)
class Deciders:
    """A value (or one reader of it) is in u8 only if all `layers` choose u8 and it is not `pinned` to f32."""

    layers: frozenset[str]
    pinned: bool


@dataclass(frozen=True, slots=True)
class FormatChoice:
    """The ways to have one value written as f32, as u8, or as f32 with a conversion to u8 behind it (`both`).

    Each way is a set of layer formats that suffices whatever the other layers choose; no way: it cannot happen.
    """

    f32: tuple[LayerFormats, ...]
    u8: tuple[LayerFormats, ...]
    both: tuple[LayerFormats, ...]


def format_choices(network: Network, allowed: Mapping[str, frozenset[str]]) -> dict[str, FormatChoice]:
    """The ways for every value, given the activation formats that each layer may choose."""
    decided: dict[str, Deciders] = {}
    choices: dict[str, FormatChoice] = {}
    for node in reversed(network.nodes):
        readers = [
            Deciders(frozenset([reader.name]), False)
            if reader.name in allowed
            else Deciders(frozenset(), True)
            if isinstance(reader.op, Softmax)
            else decided[reader.name]
            for reader in network.readers[node.name]
        ]
        output = node.name in network.outputs or not readers
        whole = Deciders(
            frozenset().union(*(r.layers for r in readers)), output or any(reader.pinned for reader in readers)
        )
        decided[node.name] = whole
        u8 = [] if whole.pinned else [dict.fromkeys(whole.layers, U8)]
        f32: list[dict[str, str]] = [{}] if whole.pinned else [{name: F32} for name in sorted(whole.layers)]
        both: list[dict[str, str]] = []
        for reader in readers:
            if reader.pinned:
                continue
            narrow = dict.fromkeys(reader.layers, U8)
            others = sorted(whole.layers - reader.layers)
            both += [narrow] if whole.pinned else [narrow | {name: F32} for name in others]
        choices[node.name] = FormatChoice(*(_allowed(ways, allowed) for ways in (f32, u8, both)))
    return choices


def _allowed(ways: list[dict[str, str]], allowed: Mapping[str, frozenset[str]]) -> tuple[LayerFormats, ...]:
    return tuple(way for way in ways if all(form in allowed[name] for name, form in way.items()))
