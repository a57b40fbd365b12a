"""A network that was trained under a policy, as what other policies begin with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from bitplan.encodings import EncodedLayer
from bitplan.formats import Ranges, derive_formats
from bitplan.network import Network, Weights
from bitplan.policies.realise.calibrate import calibrate
from bitplan.policies.realise.front import Images
from bitplan.policies.realise.subject import Reference
from bitplan.recovery_names import DEFAULT_RANGES
from bitplan.simulate import Simulator
from bitplan.variant import Variant


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
