"""An assignment: the bits of every layer's weights, from one menu for all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence

from bitplan.network import Network
from bitplan.variant import Variant

MENU = (2, 4, 8)
"""Bits of a weight; activations have 8."""
ENCODINGS = tuple(f"int{bits}" for bits in MENU)

Assignment = Mapping[str, int]
"""Bits by layer."""


def itself(layer: str) -> tuple[str, ...]:
    return (layer,)


def matched(
    found: Mapping[str, int], layers: Sequence[str], spellings: Callable[[str], Sequence[str]] = itself
) -> dict[str, int]:
    """A peer's bits by our names of the layers, in our order; `spellings` are the names that a peer may give a layer.
    Raises ValueError, naming it, for a layer that the peer leaves out, has twice or gives bits that are not on the menu,
    and for a name of the peer's that is no layer."""
    names: dict[str, str] = {}
    for layer in layers:
        here = [name for name in dict.fromkeys(spellings(layer)) if name in found]
        if len(here) != 1:
            raise ValueError(
                f"layer {layer!r} stands {len(here)} times in the peer's answer, which names {list(found)}"
            )
        if here[0] in names.values():
            raise ValueError(f"the peer's {here[0]!r} may be {layer!r} or another layer; name the modules differently")
        names[layer] = here[0]
    if unknown := set(found) - set(names.values()):
        raise ValueError(f"the peer names {min(unknown)!r}, which is no layer; layers are {list(layers)}")
    for layer, name in names.items():
        if found[name] not in MENU:
            raise ValueError(f"the peer gives layer {layer!r} {found[name]} bits; the menu is {MENU}")
    return {layer: int(found[name]) for layer, name in names.items()}


def variants_of(bits: Assignment) -> dict[str, Variant]:
    """Every layer's bits as what our artifact stores."""
    return {layer: Variant(f"int{count}") for layer, count in bits.items()}


def bits_of(variants: Mapping[str, Variant]) -> dict[str, int]:
    """The inverse of `variants_of`."""
    return {layer: int(variant.encoding.removeprefix("int")) for layer, variant in variants.items()}


def bits_per_weight(network: Network, bits: Assignment) -> float:
    """The mean over all weights of layers; scales and biases do not count."""
    counts = {node.name: network.weight_shape(node).count for node in network.layers}
    return sum(counts[layer] * count for layer, count in bits.items()) / sum(counts.values())


def digest(bits: Assignment) -> str:
    """A name for an assignment."""
    return hashlib.sha256(json.dumps(sorted(bits.items())).encode()).hexdigest()[:24]
