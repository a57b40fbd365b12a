"""What a training rule is: latent weights, and how they become a weight of levels in every step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bitplan.encodings import EncodedLayer
from bitplan.policies.realise.finetune.gradients import straight_through

Floats = NDArray[np.float32]

INSIDE = 0.25
"""How far from the edge of its level's cell, as a fraction of half its width, a latent weight is placed that recovery
rounded another way: on the edge itself it would change its level in the first steps, and with it what recovery gained."""


class Rule(nn.Module, ABC):
    """The weight of one layer under training.

    Latent weights [out, in / groups, height, width] are divided by their channel's first scale and by the layer's mean
    magnitude in such steps (or one step, if that is more), so that one learning rate suits all channels, however batch norm
    was folded into them, and all encodings. The scale is learned as its logarithm `rho` [out, 1, 1, 1]: it stays positive,
    and a step is relative.
    """

    def __init__(self, weight: Floats, nearest: EncodedLayer, start: EncodedLayer) -> None:
        """`weight`: full precision [out, in / groups, height, width]; `nearest`: rounded to the encoding; `start`:
        what recovery has made of that, with which training begins."""
        super().__init__()
        self.start = start
        self.magnitude = self.mean_magnitude()
        gain = start.scale / np.where(nearest.scale > 0, nearest.scale, 1)
        scale = torch.tensor(start.scale).view(-1, 1, 1, 1)
        latent = torch.from_numpy(weight * gain.reshape(-1, 1, 1, 1)) / torch.where(scale > 0, scale, 1)
        levels = torch.from_numpy(start.levels.astype(np.float32))
        self.unit: Tensor
        self.register_buffer("unit", scale)  # zero for a channel of zeros, which then stays one
        self.latent = nn.Parameter((self.placed(latent, levels) / self.magnitude).contiguous())
        self.rho = nn.Parameter(torch.zeros_like(scale))

    def placed(self, latent: Tensor, levels: Tensor) -> Tensor:
        """Weights in steps, moved as little as it takes to have these levels, which recovery may have chosen."""
        return latent

    def mean_magnitude(self) -> float:
        """Mean |level| at the start, and a step at least: by less, layers of mostly zeros would learn slowly."""
        return max(1.0, float(np.abs(self.start.levels).mean(dtype=np.float64)))

    def steps(self) -> Tensor:
        """The latent weights in units of the first scale."""
        return self.latent * self.magnitude

    def position(self) -> Tensor:
        """The latent weights in units of the present scale: what `ratio` rounds. Rules whose levels follow from a learned
        step divide by it."""
        return self.steps()

    @abstractmethod
    def ratio(self) -> Tensor:
        """The weight in units of `scale`: levels forwards, a straight-through gradient backwards."""

    def forward(self) -> Tensor:
        """The weight that the layer computes with, float32."""
        return self.scale() * self.ratio()

    def scale(self) -> Tensor:
        """Positive [out, 1, 1, 1]; zero for a channel of zeros."""
        return self.unit * self.rho.exp()

    def advance(self, progress: float) -> None:
        """Called before each step with the fraction of training that is over."""

    @torch.no_grad()
    def constrain(self) -> None:
        """Called after each step of the optimiser."""

    def weights(self) -> list[nn.Parameter]:
        """Parameters that weight decay is for."""
        return [self.latent]

    def thresholds(self) -> list[nn.Parameter]:
        """Parameters with an Adam of their own, without decay."""
        return []

    @torch.no_grad()
    def floats(self, gain: Floats) -> Floats:
        """The weight before it is rounded, times `gain` [out]: float32 [out, in / groups, height, width]. It is what other
        encodings of the trained layer begin with."""
        found = (self.scale() * self.position()).numpy() * gain.reshape(-1, 1, 1, 1)
        return np.asarray(found, np.float32)

    @torch.no_grad()
    def encoded(self, gain: Floats, bias: Floats) -> EncodedLayer:
        """The layer as the file holds it, its scale times `gain` [out], with this bias [out]."""
        scale = (self.scale().reshape(-1).numpy() * gain).astype(np.float32)
        levels = self.ratio().numpy().round().astype(np.int8)
        return replace(self.start, levels=levels).rescaled(scale, bias)


def within_cells(latent: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Latent weights moved into their levels' cells low..high (which may be infinite), where they lie outside."""
    width = high - low
    margin = INSIDE / 2 * torch.where(width.isfinite(), width, 1.0)
    moved = torch.where(latent < low, low + margin, latent)
    return torch.where(latent > high, high - margin, moved)


def level_of(value: Tensor, carrier: Tensor, low: float, high: float) -> Tensor:
    """`value`, with a gradient to `carrier` where it lies in low..high (clipped straight-through)."""
    return straight_through(value, carrier.clamp(low, high))
