"""pruned, prunedfloat: the weights that recovery kept are trained, the others stay zero."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from bitplan.encodings import EncodedLayer
from bitplan.encodings.channel_numbers import round_to_half
from bitplan.policies.realise.finetune.rules.base import Floats
from bitplan.policies.realise.finetune.rules.floats import Floats32
from bitplan.policies.realise.finetune.rules.grid import Grid


class Pruned(Grid):
    """The levels of int8 with LSQ's gradient inside the mask of the start, so that the share kept is that of the policy in
    every step."""

    def __init__(self, weight: Floats, nearest: EncodedLayer, start: EncodedLayer) -> None:
        super().__init__(weight, nearest, start)
        self.mask: Tensor
        self.register_buffer("mask", torch.from_numpy((start.levels != 0).astype(np.float32)))

    def mean_magnitude(self) -> float:
        """That of the weights that are kept."""
        kept = np.abs(self.start.levels[self.start.levels != 0])
        return float(kept.mean(dtype=np.float64)) if kept.size else 1.0

    def ratio(self) -> Tensor:
        return super().ratio() * self.mask


class PrunedFloats(Floats32):
    """The kept weights themselves."""

    def __init__(self, weight: Floats, nearest: EncodedLayer, start: EncodedLayer) -> None:
        super().__init__(weight, nearest, start)
        self.mask: Tensor
        self.register_buffer("mask", torch.from_numpy((start.values != 0).astype(np.float32)))

    def ratio(self) -> Tensor:
        return self.latent * self.mask

    def forward(self) -> Tensor:
        return self.ratio()

    @torch.no_grad()
    def encoded(self, gain: Floats, bias: Floats) -> EncodedLayer:
        values = round_to_half(self.ratio().numpy() * gain.reshape(-1, 1, 1, 1))
        return EncodedLayer(self.start.variant, self.start.shape, np.asarray(bias, np.float32), values=values)
