"""A realised network that can be differentiated by scales, biases and offsets of levels: what tuning and block rounding
work on.

Rounding to codes lets gradients through as if it were not there, clipping stops them (straight-through estimator, Bengio
et al., arXiv 1308.3432). Values are those of the simulator but for the order of sums.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from bitplan.encodings import EncodedLayer
from bitplan.formats import Range, Ranges, derive_formats, top_code
from bitplan.network import Conv2d, Input, Linear, Network, ScaleShift
from bitplan.operations import convolve, dense, execute, scale_shift, shared
from bitplan.policies.realise.front import Images
from bitplan.policies.realise.moves import Moves
from bitplan.simulate import Simulator, first_range, input_formats, range_of
from bitplan.variant import F32, U1


@dataclass(frozen=True)
class Channels:
    """What is tuned of a layer, by output channel [out]: the logarithm of a factor on its scale, and a shift of its bias in
    units of the layer's outputs."""

    gain: Tensor
    shift: Tensor
    unit: float


class Trainable:
    """Executes a network with layers that are encoded, under the tuned factors and shifts."""

    def __init__(
        self,
        simulator: Simulator,
        layers: Mapping[str, EncodedLayer],
        ranges: Ranges,
        units: Mapping[str, float],
        moves: Mapping[str, Moves] | None = None,
    ) -> None:
        """Of the layers in `units`, factors and shifts are trained, of those in `moves` offsets too."""
        self.simulator, self.network, self.ranges = simulator, simulator.network, ranges
        self.layers, self.moves = layers, moves or {}
        self.formats = derive_formats(self.network, {name: layer.variant for name, layer in layers.items()})
        self.channels = {
            name: Channels(_zeros(layer), _zeros(layer), units[name])
            for name, layer in layers.items()
            if layer.variant.activation != F32 and name in units
        }
        self._fixed = {name: _fixed(self.network, name, layer) for name, layer in layers.items()}

    @property
    def parameters(self) -> list[Tensor]:
        """All factors and shifts, each [out] of its layer."""
        return [tensor for channels in self.channels.values() for tensor in (channels.gain, channels.shift)]

    def vector(self) -> NDArray[np.float32]:
        """All parameters in a row."""
        return np.concatenate([tensor.detach().numpy() for tensor in self.parameters])

    def split(self, vector: NDArray[np.float32]) -> list[Tensor]:
        """A row of as many numbers as there are parameters, cut and shaped as they are."""
        ends = np.cumsum([len(tensor) for tensor in self.parameters])
        return [torch.from_numpy(part.copy()) for part in np.split(vector, ends[:-1])]

    @torch.no_grad()
    def load(self, vector: NDArray[np.float32]) -> None:
        """Sets all parameters."""
        for tensor, values in zip(self.parameters, self.split(vector), strict=True):
            tensor.copy_(values)

    def tuned(self) -> dict[str, EncodedLayer]:
        """The layers with the present factors and shifts, rounded to what the file holds."""
        found = dict(self.layers)
        for name, channels in self.channels.items():
            gain = channels.gain.detach().exp().numpy()
            bias = self.layers[name].bias + (channels.unit * channels.shift).detach().numpy()
            found[name] = self.layers[name].corrected(gain, bias)
        return found

    def values(self, images: Images, keep: frozenset[str]) -> dict[str, Tensor]:
        """The values named in `keep`, differentiable, for raw images."""
        names = [node.name for node in self.network.inputs]
        given = {name: value.clone() for name, value in self.simulator.values(images, keep=names).items()}
        live = self.run(given, 0, len(self.network.nodes))
        return {name: live[name] for name in keep}

    def run(self, given: Mapping[str, Tensor], start: int, stop: int) -> dict[str, Tensor]:
        """`given`, all that nodes[start:stop] read of earlier values, and the values that they make, differentiable."""
        live = dict(given)
        for node in self.network.nodes[start:stop]:
            if isinstance(node.op, Input):
                continue
            inputs = [
                live[name]
                if form == F32
                else straight_through(live[name], range_of(self.network, name, form, self.formats, self.ranges), form)
                for name, form in zip(node.inputs, input_formats(node, self.formats), strict=True)
            ]
            live[node.name] = self._execute(node, inputs)
        return live

    def _execute(self, node: Any, inputs: list[Tensor]) -> Tensor:
        if isinstance(node.op, ScaleShift):
            return scale_shift(node.op, inputs[0], *self.simulator.arrays(node))
        if not isinstance(node.op, Conv2d | Linear):
            return execute(node, inputs)
        weight, bias = self._fixed[node.name]
        if node.name in self.moves:
            weight = weight + self.moves[node.name].change().reshape(weight.shape)
        if node.name in self.channels:
            channels = self.channels[node.name]
            weight = weight * channels.gain.exp().view(-1, *[1] * (weight.ndim - 1))
            bias = bias + channels.unit * channels.shift
        residual = inputs[1] if len(inputs) > 1 else None
        if isinstance(node.op, Conv2d):
            held = first_range(self.network, node, self.formats, self.ranges)
            x, op = inputs[0], node.op
            if held and any(op.padding):  # formats without a code for zero pad with one of their levels
                top, bottom, left, right = op.padding
                x = F.pad(x, (left, right, top, bottom), value=held.padding_value)
                op = replace(op, padding=(0, 0, 0, 0))
            return convolve(op, x, weight, bias, residual)
        return dense(node.op, inputs[0], weight, bias, residual)


def output_units(simulator: Simulator, layers: Mapping[str, EncodedLayer], images: Images) -> dict[str, float]:
    """The root mean square of each layer's full-precision outputs: what its biases are measured in."""
    values = simulator.values(images, keep=list(layers))
    return {name: float(value.square().mean().sqrt()) or 1.0 for name, value in values.items()}


def straight_through(x: Tensor, held: Range, form: str) -> Tensor:
    """`simulate.fake_quantise` with the gradient of clipping alone."""
    scale = float(np.float32(held.scale))
    low, high = (scale * (end - held.zero_point) for end in (0, top_code(form)))
    clipped = x.clamp(low, high)
    if form == U1:
        codes = torch.where(x > float(held.threshold()), high, low)
    else:
        codes = (clipped * (1 / scale)).round() * scale
    return clipped + (codes - clipped).detach()


def _zeros(layer: EncodedLayer) -> Tensor:
    return torch.zeros(layer.shape.out_channels, requires_grad=True)


def _fixed(network: Network, name: str, layer: EncodedLayer) -> tuple[Tensor, Tensor]:
    weight = shared(np.asarray(layer.weight, np.float32)).clone()
    if isinstance(network.by_name[name].op, Linear):
        weight = weight.reshape(len(weight), -1)
    else:
        weight = weight.contiguous(memory_format=torch.channels_last)
    return weight, shared(np.asarray(layer.bias, np.float32)).clone()
