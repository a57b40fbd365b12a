"""apb: binary weights plus a few kept ones (automatic prune binarization, arXiv 2306.08960)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from bitplan.encodings import EncodedLayer, encoding_of
from bitplan.encodings.apb import Apb as ApbEncoding
from bitplan.policies.realise.finetune.gradients import binarise_near
from bitplan.policies.realise.finetune.rules.base import INSIDE, Floats, Rule, level_of

FROZEN_AT = 0.5
"""Fraction of training after which alpha and delta are constant."""
EXACT_AT = 0.75
"""Fraction of training from which exactly the policy's number of weights is kept."""


class Apb(Rule):
    """A latent weight is binarised where | |w| - alpha | < delta, to sign(w) alpha, and kept elsewhere. One alpha and one
    delta for the layer, in units of the channels' first magnitudes, so that each channel has a magnitude of its own.

    The policy fixes how many weights are kept. `kept` says which: with `start` those that recovery chose by their effect
    on the outputs, all through training, so that it begins with the very network that recovery left. `count` and `learned`
    choose by distance from alpha in every step: as many as the policy says, or (`learned`) as delta decides in the first
    half of training (weight decay then makes the kept ones fewer); behind it their number moves to the policy's, which it
    has in the last quarter. A delta below alpha would keep weights about zero too, which nothing forbids here: kept ones
    are the farthest from alpha on either side, as in the encoding.
    """

    def __init__(self, weight: Floats, nearest: EncodedLayer, start: EncodedLayer, *, gradient: str, kept: str) -> None:
        encoding = encoding_of(start.variant)
        assert isinstance(encoding, ApbEncoding)
        self.top, self.count = encoding.top, len(start.kept_positions)
        binarised = np.ones(start.levels.size, bool)
        binarised[start.kept_positions] = False
        self.chosen = torch.from_numpy(binarised.reshape(start.levels.shape)) if kept == "start" else None
        super().__init__(weight, nearest, start)
        spread = torch.from_numpy(nearest.scale / max(float(nearest.scale.mean()), 1e-30))
        self.spread: Tensor
        self.register_buffer("spread", spread.view(-1, 1, 1, 1))
        self.gradient, self.learned = gradient, kept == "learned"
        with torch.no_grad():
            self.alpha = nn.Parameter(torch.ones(()), requires_grad=gradient != "frozen")
            farthest = self.distance().reshape(-1).kthvalue(max(1, self.latent.numel() - self.count)).values
            self.delta = nn.Parameter((farthest * 1.0001).clamp(min=1e-6), requires_grad=self.learned)
        self.outside: Tensor
        self.register_buffer("outside", torch.tensor(self.count))  # kept when delta was frozen
        self.progress: Tensor
        self.register_buffer("progress", torch.zeros((), dtype=torch.float64))  # so that a resumed training knows

    def mean_magnitude(self) -> float:
        """That of the binarised weights, which is the same for all: the unit of the layer."""
        return float(np.delete(np.abs(self.start.levels.reshape(-1)), self.start.kept_positions)[0])

    def placed(self, latent: Tensor, levels: Tensor) -> Tensor:
        disagrees = torch.where(latent < 0, -1.0, 1.0) != levels.sign()
        agreeing = torch.where(disagrees & (levels != 0), INSIDE * levels, latent)
        return agreeing if self.chosen is None else torch.where(self.chosen, agreeing, levels)

    def distance(self) -> Tensor:
        """| |w| - alpha | of each weight, by the scale of its channel: kept are those with the largest error, as in the
        encoding."""
        return (self.latent.detach().abs() - self.alpha.detach()).abs() * self.spread

    def thresholds(self) -> list[nn.Parameter]:
        return [p for p in (self.alpha, self.delta) if p.requires_grad]

    @torch.no_grad()
    def advance(self, progress: float) -> None:
        if self.progress < FROZEN_AT <= progress:
            self.outside.copy_((self.distance() >= self.delta).sum())
        self.progress.fill_(progress)

    @torch.no_grad()
    def near(self) -> Tensor:
        """The weights that are binarised."""
        if self.learned and self.progress < FROZEN_AT:
            return self.distance() < self.delta
        share = min(1.0, max(0.0, (float(self.progress) - FROZEN_AT) / (EXACT_AT - FROZEN_AT))) if self.learned else 1.0
        return self.all_but(round(int(self.outside) + share * (self.count - int(self.outside))))

    def all_but(self, count: int) -> Tensor:
        """All weights but the `count` farthest from alpha, or but those of the start."""
        if self.chosen is not None:
            return self.chosen
        distance = self.distance()
        near = torch.ones(distance.numel(), dtype=torch.bool)
        near[distance.reshape(-1).topk(count).indices] = False
        return near.view_as(distance)

    def ratio(self) -> Tensor:
        frozen, near = self.progress >= FROZEN_AT, self.near()
        alpha, delta = (p.detach() if frozen else p for p in (self.alpha, self.delta))
        found = self.magnitude * binarise_near(self.latent, alpha, delta, near, self.gradient)
        reach = (self.top + 0.5) * float(self.alpha.detach())  # no binarised weight is that far out
        return level_of(torch.where(near, found, self.levels_of_kept() * self.alpha), found, -reach, reach)

    @torch.no_grad()
    def levels_of_kept(self) -> Tensor:
        """The nearest level to every weight: with four bits, what rounding them does is not to be left out of training."""
        return (self.position() / self.alpha).round().clamp(-self.top, self.top)

    @torch.no_grad()
    def constrain(self) -> None:
        self.alpha.clamp_(min=1e-3)
        self.delta.clamp_(min=1e-3)

    @torch.no_grad()
    def encoded(self, gain: Floats, bias: Floats) -> EncodedLayer:
        near = self.all_but(self.count)
        scale = (self.scale().reshape(-1).numpy() * gain).astype(np.float32)
        binarised = torch.where(self.latent < 0, -self.magnitude, self.magnitude)
        levels = torch.where(near, binarised, self.levels_of_kept()).numpy().astype(np.int8)
        trained = replace(self.start, levels=levels, kept_positions=np.flatnonzero(~near.numpy().reshape(-1)))
        return trained.rescaled(scale * np.float32(float(self.alpha)), bias)
