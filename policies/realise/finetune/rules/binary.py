"""binary: signs, with clipped straight-through (arXiv 1602.02830, 1603.05279)."""

from __future__ import annotations

import torch
from torch import Tensor

from bitplan.encodings import EncodedLayer
from bitplan.policies.realise.finetune.gradients import straight_through
from bitplan.policies.realise.finetune.rules.base import INSIDE, Floats, Rule

REACH = 2.0
"""Latent weights are held within this multiple of the mean magnitude, so that each can still change its sign."""


class Binary(Rule):
    """sign(latent), zero counting as positive. The scale is learned, or (`mean_scale`) the mean |latent|, which the
    gradient reaches too, times what is learned beside it."""

    def __init__(self, weight: Floats, nearest: EncodedLayer, start: EncodedLayer, *, mean_scale: bool = False) -> None:
        super().__init__(weight, nearest, start)
        self.mean_scale = mean_scale
        with torch.no_grad():
            self.constrain()
            self.first_mean = self.mean() if mean_scale else torch.ones(())

    def placed(self, latent: Tensor, levels: Tensor) -> Tensor:
        disagrees = torch.where(latent < 0, -1.0, 1.0) != levels
        return torch.where(disagrees, INSIDE * levels, latent)

    def ratio(self) -> Tensor:
        return straight_through(torch.where(self.latent < 0, -1.0, 1.0), self.latent)

    def scale(self) -> Tensor:
        scale = super().scale()
        return scale * self.mean() / self.first_mean if self.mean_scale else scale

    def mean(self) -> Tensor:
        """Mean |latent| of each channel [out, 1, 1, 1]."""
        return self.latent.abs().mean((1, 2, 3), keepdim=True).clamp(min=1e-6)

    @torch.no_grad()
    def constrain(self) -> None:
        self.latent.clamp_(-REACH, REACH)
