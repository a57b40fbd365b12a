"""Whole-number levels whose entropy stays within a rate: for encodings that entropy-code their levels."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from bitplan.encodings import EncodedLayer, encoding_of
from bitplan.encodings.base import round_to_half
from bitplan.encodings.coded import Coded
from bitplan.policies.realise.finetune.rules.base import Floats, Rule, level_of

REACHED_AT = 0.6
"""Fraction of training after which the rate has its last value."""
SPEED = 0.02
"""What a step adds to the multiplier for each bit per weight above the rate."""
LARGEST = 8.0


class UnderRate(Rule):
    """Levels -top..top of a learned step with a dead zone: q = sign(r) floor(|r| + 1/2 - zone), at most `top`.

    Minimising (r - q)^2 + multiplier x bits(q) moves the threshold between |q| - 1 and |q| by multiplier / 2 x (bits(|q|)
    - bits(|q| - 1)). For Laplacian weights that difference is the same for all |q|, so that one zone serves all
    thresholds (Sullivan 1996). The multiplier is controlled: it grows while the layer's empirical order-0 entropy lies
    above the rate, and falls below it; the rate itself goes from the entropy of the start to the one that was promised.
    """

    def __init__(
        self, weight: Floats, nearest: EncodedLayer, start: EncodedLayer, *, bits: float, top: int = 127
    ) -> None:
        self.top, self.bits = float(top), bits
        super().__init__(weight, nearest, start)
        self.first_bits = float(order0_entropy(torch.from_numpy(start.levels.astype(np.float32))))
        self.multiplier: Tensor
        self.register_buffer("multiplier", torch.zeros(()))
        self.done: Tensor
        self.register_buffer("done", torch.zeros((), dtype=torch.float64))

    def placed(self, latent: Tensor, levels: Tensor) -> Tensor:
        inner = 0.499
        low = torch.where(levels <= -self.top, -torch.inf, levels - inner)
        high = torch.where(levels >= self.top, torch.inf, levels + inner)
        return torch.minimum(torch.maximum(latent, low), high)

    def position(self) -> Tensor:
        return self.steps() * (-self.rho).exp()

    def levels(self, r: Tensor, multiplier: float) -> Tensor:
        zone = multiplier / 2
        return r.sign() * (r.abs() + 0.5 - zone).floor().clamp(0, self.top)

    @torch.no_grad()
    def advance(self, progress: float) -> None:
        if progress <= self.done and progress > 0:
            return  # a state that was loaded: the controller has taken this step
        self.done.fill_(progress)
        share = min(1.0, progress / REACHED_AT)
        target = self.first_bits + share * (self.bits - self.first_bits)
        excess = order0_entropy(self.levels(self.position(), float(self.multiplier))) - target
        self.multiplier.add_(SPEED * excess).clamp_(0, LARGEST)

    def ratio(self) -> Tensor:
        r = self.position()
        reach = self.top + 0.5
        return level_of(self.levels(r, float(self.multiplier)), r, -reach, reach)

    @torch.no_grad()
    def encoded(self, gain: Floats, bias: Floats) -> EncodedLayer:
        scale = (self.scale().reshape(-1).numpy() * gain).astype(np.float32)
        encoding = encoding_of(self.start.variant)
        if isinstance(encoding, Coded):  # exactly: tables count, and contexts
            ideal = self.position()
            levels = self.levels(ideal, float(self.multiplier)).numpy().astype(np.int8)
            levels = encoding.shrink(levels, self.start.variant, ideal.numpy(), scale**2)
        else:
            levels = self.within_rate().numpy().astype(np.int8)
        return EncodedLayer(self.start.variant, self.start.shape, round_to_half(bias), round_to_half(scale), levels)

    def within_rate(self) -> Tensor:
        """The levels under the smallest multiplier, from the present one on, whose entropy is at most the rate."""
        r, multiplier = self.position(), float(self.multiplier)
        levels = self.levels(r, multiplier)
        while order0_entropy(levels) > self.bits and levels.any():
            multiplier += 0.01
            levels = self.levels(r, multiplier)
        return levels


def order0_entropy(levels: Tensor) -> Tensor:
    """Bits per weight of the levels' own distribution: -sum p log2 p."""
    codes = levels.reshape(-1).long()
    counts = torch.bincount(codes - codes.min()).float()
    p = counts[counts > 0] / codes.numel()
    return -(p * p.log2()).sum()
