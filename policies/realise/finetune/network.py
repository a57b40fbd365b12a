"""A Network under a policy as something that can be trained: every rounding has a straight-through gradient."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from bitplan.formats import Range, derive_formats
from bitplan.network import SAME_RANGE, Conv2d, Input, Linear, Network, Node, ScaleShift, Weights
from bitplan.operations import execute, scale_shift, shared
from bitplan.policies.realise.finetune.activations import Codes
from bitplan.policies.realise.finetune.layer import TrainedLayer
from bitplan.policies.realise.finetune.rules import rule_for
from bitplan.policies.realise.finetune.settings import Settings
from bitplan.policies.realise.pipeline import Realisation, quantise
from bitplan.policies.realise.warm import WarmStart
from bitplan.simulate import input_formats, range_source
from bitplan.variant import F32, FLOAT32, U8, Variant


class TrainedNetwork(nn.Module):
    """Executes the network as `Simulator` does, but that sums are of fake-quantised floats and not of codes: equal up to
    rounding, and to what a value does that lies that near a threshold. Begins with the layers and ranges of `start`, and
    with latent weights near the floats of `warm`, or near full precision without."""

    def __init__(
        self,
        network: Network,
        weights: Weights,
        variants: Mapping[str, Variant],
        start: Realisation,
        settings: Settings,
        warm: WarmStart | None = None,
    ) -> None:
        super().__init__()
        self.network, self.start, self.settings = network, start, settings
        self.formats = derive_formats(network, variants)
        layers = {}
        for node in network.layers:
            shape = network.weight_shape(node)
            size = (shape.out_channels, shape.in_channels // shape.groups, *shape.kernel)
            floats = warm.floats if warm else weights
            weight = np.asarray(floats[f"{node.name}.weight"], np.float32).reshape(size)
            # A trained layer's floats are rounded to itself, and to its scale.
            kept = warm.kept(node.name, variants[node.name]) if warm else None
            nearest = kept or quantise(network, node, floats, variants[node.name])
            rule = rule_for(weight, nearest, start.layers[node.name], settings)
            normalise = settings.normalise and variants[node.name] != FLOAT32
            layers[node.name] = TrainedLayer(node, rule, normalise=normalise)
        self._shapes = {node.name: weights[f"{node.name}.weight"].shape for node in network.layers}
        self._names = {name: number for number, name in enumerate(layers)}  # names may hold dots, keys may not
        self.layers = nn.ModuleList(layers.values())
        self._codes: dict[tuple[str, str], int] = {}
        self.codes = nn.ModuleList()
        for node in network:
            for name, form in zip(node.inputs, input_formats(node, self.formats) if node.inputs else (), strict=True):
                source = self._source(name, form)
                if form != F32 and (source, form) not in self._codes:
                    self._codes[source, form] = len(self.codes)
                    is_input = isinstance(network.by_name[source].op, Input)
                    learned = settings.activations == "codes" and not is_input
                    self.codes.append(Codes(start.ranges[source][form], form, learned=learned))
        self._constants = {
            node.name: (shared(weights[f"{node.name}.scale"]), shared(weights[f"{node.name}.shift"]))
            for node in network
            if isinstance(node.op, ScaleShift)
        }

    def layer(self, name: str) -> TrainedLayer:
        found = self.layers[self._names[name]]
        assert isinstance(found, TrainedLayer)
        return found

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """The outputs, float32, for preprocessed x [N, ...] of the only input."""
        values: dict[str, Tensor] = {}
        rounded: dict[tuple[str, str], Tensor] = {}
        for node in self.network:
            if isinstance(node.op, Input):
                values[node.name] = x
                continue
            forms = input_formats(node, self.formats)
            inputs = [self._read(name, form, values, rounded) for name, form in zip(node.inputs, forms, strict=True)]
            if isinstance(node.op, Conv2d | Linear):
                residual = inputs[1] if len(inputs) > 1 else None
                padding = self._padding(node.inputs[0], forms[0])
                values[node.name] = self.layer(node.name)(inputs[0], residual, padding)
            elif isinstance(node.op, ScaleShift):
                values[node.name] = scale_shift(node.op, inputs[0], *self._constants[node.name])
            else:
                values[node.name] = execute(node, inputs)
        return {name: values[name].float() for name in self.network.outputs}

    def realisation(self) -> Realisation:
        """The layers and ranges as they are now, as the artifact holds them."""
        layers = {node.name: self.layer(node.name).encoded() for node in self.network.layers}
        ranges: dict[str, dict[str, Range]] = {}
        for node in self.network:
            ranges[node.name] = dict(self.start.ranges.get(node.name, {}))
            for form in self.start.ranges.get(node.name, {}):
                if (node.name, form) in self._codes:
                    ranges[node.name][form] = self._quantiser(node.name, form).range()
                elif form == U8 and isinstance(node.op, SAME_RANGE) and self._shares_range(node):
                    ranges[node.name][U8] = ranges[node.inputs[0]][U8]
        return Realisation(layers, ranges)

    def floats(self) -> dict[str, np.ndarray]:
        """The weights as they are now, before they are rounded: those of the layers, named and shaped as in Weights."""
        found = {}
        for node in self.network.layers:
            weight, bias = self.layer(node.name).floats()
            found[f"{node.name}.weight"] = weight.reshape(self._shapes[node.name])
            found[f"{node.name}.bias"] = bias
        return found

    @torch.no_grad()
    def observe(self, x: Tensor) -> None:
        """Starts batch norms, if there are any, as what changes nothing on x."""
        found = [layer for layer in self.layers if isinstance(layer, TrainedLayer) and layer.norm is not None]
        for layer in found:
            layer.observing = True
        if found:
            self(x)
        for layer in found:
            layer.observing = False

    def advance(self, progress: float) -> None:
        """Called before each step with the fraction of training that is over."""
        for name in self._names:
            self.layer(name).rule.advance(progress)

    def constrain(self) -> None:
        """Called after each step."""
        for name in self._names:
            self.layer(name).rule.constrain()

    def _shares_range(self, node: Node) -> bool:
        ranges = self.start.ranges
        return ranges[node.name][U8] == ranges[node.inputs[0]].get(U8)

    def _read(
        self, name: str, form: str, values: Mapping[str, Tensor], rounded: dict[tuple[str, str], Tensor]
    ) -> Tensor:
        if form == F32 or self.settings.activations == "float":
            return values[name]
        if (name, form) not in rounded:
            rounded[name, form] = self._quantiser(self._source(name, form), form)(values[name])
        return rounded[name, form]

    def _padding(self, name: str, form: str) -> float:
        if form == F32 or self.settings.activations == "float":
            return 0.0
        return self._quantiser(self._source(name, form), form).padding()

    def _source(self, name: str, form: str) -> str:
        return range_source(self.network, name, form, self.formats, self.start.ranges)

    def _quantiser(self, source: str, form: str) -> Codes:
        found = self.codes[self._codes[source, form]]
        assert isinstance(found, Codes)
        return found
