"""float32 layers: trained as they are."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from bitplan.encodings import EncodedLayer
from bitplan.policies.realise.finetune.rules.base import Floats, Rule


class Floats32(Rule):
    """The weight itself. `gain` is taken into it where the layer is encoded."""

    def __init__(self, weight: Floats, nearest: EncodedLayer, start: EncodedLayer) -> None:
        nn.Module.__init__(self)
        self.start = start
        self.latent = nn.Parameter(torch.tensor(start.values))
        self.rho = nn.Parameter(torch.zeros(len(weight), 1, 1, 1), requires_grad=False)
        self.register_buffer("unit", torch.ones(len(weight), 1, 1, 1))

    def ratio(self) -> Tensor:
        return self.latent

    def forward(self) -> Tensor:
        return self.latent

    @torch.no_grad()
    def floats(self, gain: Floats) -> Floats:
        return np.asarray(self.latent.numpy() * gain.reshape(-1, 1, 1, 1), np.float32)

    @torch.no_grad()
    def encoded(self, gain: Floats, bias: Floats) -> EncodedLayer:
        values = self.floats(gain)
        return EncodedLayer(self.start.variant, self.start.shape, np.asarray(bias, np.float32), values=values)
