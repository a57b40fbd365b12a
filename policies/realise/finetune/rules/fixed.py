"""Levels as recovery left them; scale and bias are trained."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from bitplan.encodings import EncodedLayer
from bitplan.policies.realise.finetune.rules.base import Floats, Rule


class Fixed(Rule):
    """For encodings whose levels cannot change one by one, such as xor, whose code is found by a search."""

    def __init__(self, weight: Floats, nearest: EncodedLayer, start: EncodedLayer) -> None:
        nn.Module.__init__(self)
        self.start = start
        self.unit: Tensor
        self.levels: Tensor
        self.register_buffer("unit", torch.tensor(start.scale).view(-1, 1, 1, 1))
        self.register_buffer("levels", torch.from_numpy(start.levels.astype(np.float32)))
        self.rho = nn.Parameter(torch.zeros_like(self.unit))

    def weights(self) -> list[nn.Parameter]:
        return []

    def position(self) -> Tensor:
        return self.levels

    def ratio(self) -> Tensor:
        return self.levels

    @torch.no_grad()
    def encoded(self, gain: Floats, bias: Floats) -> EncodedLayer:
        scale = (self.scale().reshape(-1).numpy() * gain).astype(np.float32)
        return self.start.rescaled(scale, bias)
