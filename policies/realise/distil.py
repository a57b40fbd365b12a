"""What tuning minimises: how far a network's outputs are from those of full precision on the same images."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf, isfinite

import torch
import torch.nn.functional as F
from torch import Tensor

from bitplan.encodings import EncodedLayer
from bitplan.formats import Ranges
from bitplan.network import Network, Softmax
from bitplan.policies.realise.front import Images, count_images, slices, take
from bitplan.simulate import Simulator

TEMPERATURE = 3.0
"""Both sides are softened by it: training images saturate the outputs, and saturated outputs teach nothing."""

FEATURES = 1.0
"""Weight of the relative squared error of what the last layer reads."""

TINY = 1e-12


class Distance:
    """T^2 KL(softmax(z / T) || softmax(z' / T)) of a vector of scores (Hinton et al., arXiv 1503.02531), the squared error
    over the variance of any other output; `features` adds the same of what the last layer reads."""

    def __init__(self, network: Network, temperature: float = TEMPERATURE) -> None:
        self.network, self.temperature = network, temperature
        self.feature = network.layers[-1].inputs[0]
        self.values = frozenset([*network.outputs, self.feature])

    def outputs(self, full: Mapping[str, Tensor], changed: Mapping[str, Tensor]) -> Tensor:
        """The mean over the images, over all outputs."""
        found = [self._output(name, full[name], changed[name]) for name in self.network.outputs]
        return torch.stack(found).mean()

    def whole(self, full: Mapping[str, Tensor], changed: Mapping[str, Tensor]) -> Tensor:
        """The same with the features."""
        return self.outputs(full, changed) + FEATURES * relative(full[self.feature], changed[self.feature])

    def _output(self, name: str, full: Tensor, changed: Tensor) -> Tensor:
        node = self.network.by_name[name]
        if full.ndim != 2 or full.shape[1] < 2:
            return relative(full, changed)
        if isinstance(node.op, Softmax):
            full, changed = (x.clamp_min(TINY).log() for x in (full, changed))
        soft, after = ((x / self.temperature).log_softmax(1) for x in (full, changed))
        return self.temperature**2 * F.kl_div(after, soft, reduction="batchmean", log_target=True)


def relative(full: Tensor, changed: Tensor) -> Tensor:
    """The squared error over the variance of `full`."""
    return ((full - changed) ** 2).mean() / full.var(correction=0).clamp_min(TINY)


def held_back_distance(
    simulator: Simulator,
    distance: Distance,
    layers: Mapping[str, EncodedLayer],
    ranges: Ranges,
    images: Images,
    batch: int,
) -> float:
    """The mean distance of the outputs over the images, as the runtime would compute them; infinite where one is no number."""
    total, count = 0.0, count_images(images)
    for part in slices(0, count, batch):
        full = simulator.outputs(take(images, part))
        ours = simulator.outputs(take(images, part), layers, ranges)
        total += float(distance.outputs(full, ours)) * (part.stop - part.start)
    return total / count if isfinite(total) else inf
