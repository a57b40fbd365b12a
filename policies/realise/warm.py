"""A network that was trained under a policy, as what other policies begin with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bitplan.encodings import EncodedLayer, encoding_of
from bitplan.formats import Ranges, derive_formats
from bitplan.network import Network, Weights, weights_hash
from bitplan.policies.realise.calibrate import calibrate
from bitplan.policies.realise.front import Images
from bitplan.policies.realise.subject import Reference
from bitplan.recovery_names import DEFAULT_RANGES
from bitplan.simulate import Simulator
from bitplan.variant import Variant

if TYPE_CHECKING:
    from bitplan.policies.realise.pipeline import Realisation


@dataclass(frozen=True)
class WarmStart:
    """`layers` and `ranges` as the artifact holds them; `floats`: the layers' weights and biases before they were rounded
    (training's latent weights), named and shaped as in Weights. A policy that gives a layer the variant that it has here
    takes it over; any other variant is made of the floats."""

    layers: Mapping[str, EncodedLayer]
    ranges: Ranges
    floats: Weights

    @property
    def variants(self) -> dict[str, Variant]:
        return {name: layer.variant for name, layer in self.layers.items()}

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 of everything, in hexadecimal."""
        digest = hashlib.sha256(weights_hash(self.floats).encode())
        for name, layer in self.layers.items():
            digest.update(f"{name} {layer.variant}".encode() + encoding_of(layer.variant).pack(layer))
        held = {
            name: {form: [float(found.scale), float(found.zero_point)] for form, found in by_format.items()}
            for name, by_format in self.ranges.items()
        }
        digest.update(json.dumps(held, sort_keys=True).encode())
        return digest.hexdigest()

    def kept(self, name: str, variant: Variant) -> EncodedLayer | None:
        """The layer that is taken over where it is to have this variant; None where it must be made anew."""
        layer = self.layers[name]
        return layer if layer.variant == variant else None

    def reference(self, name: str, network: Network) -> Reference:
        """A layer as it was trained, for recovery."""
        formats = derive_formats(network, self.variants)
        return Reference(self.layers[name], self.ranges, formats, np.asarray(self.floats[f"{name}.weight"], np.float32))

    def with_ranges(
        self, simulator: Simulator, images: Images, formats: Sequence[str], *, method: str = DEFAULT_RANGES
    ) -> WarmStart:
        """With a range for every value in each of `formats`: its own where it has one, others are calibrated on the
        values that the trained network has on raw images [N, ...]."""
        held = {name: dict(by_format) for name, by_format in self.ranges.items()}
        new = [form for form in formats if any(form not in held.get(node.name, {}) for node in simulator.network)]
        if not new:
            return self
        found = calibrate(simulator, images, new, method=method, layers=self.layers, ranges=self.ranges)
        return replace(self, ranges={name: by_format | held.get(name, {}) for name, by_format in found.items()})

    def followed_by(self, found: Realisation) -> WarmStart:
        """What recovery made of another policy, as what later ones begin with: the floats of layers that were taken over
        move with their correction, the others get their new biases."""
        floats = following(self.floats, self.layers, found.layers)
        return WarmStart(found.layers, found.ranges, floats)


def following(
    floats: Weights, before: Mapping[str, EncodedLayer], after: Mapping[str, EncodedLayer]
) -> dict[str, NDArray[np.float32]]:
    """Weights before rounding, moved as corrections of scales and biases have moved their layers."""
    moved = dict(floats)
    for name, layer in after.items():
        moved[f"{name}.bias"] = layer.bias
        old = before[name]
        if len(layer.scale) and old.variant == layer.variant:
            gain = np.where(old.scale > 0, layer.scale / np.where(old.scale > 0, old.scale, 1), 1).astype(np.float32)
            weight = moved[f"{name}.weight"]
            moved[f"{name}.weight"] = weight * gain.reshape(-1, *[1] * (weight.ndim - 1))
    return moved
