"""codedternary by the papers' rules: TWN's threshold, or pruning (PTQ), with as many zeros as the entropy code's bytes ask for."""

from __future__ import annotations

import torch
from torch import Tensor

from bitplan.encodings import EncodedLayer
from bitplan.encodings.coded import CodedTernary
from bitplan.policies.realise.finetune.rules.base import Floats
from bitplan.policies.realise.finetune.rules.rate import Counted, Room
from bitplan.policies.realise.finetune.rules.ternary import MeanThreshold, Pruned

STEP = 0.1
"""The largest fraction by which levels that are not zero become more or fewer at one count of the bytes."""


class _AtRate(Counted):
    """What both have in common: a fraction of the levels is zero, that of the start at first; every few steps the bytes are
    counted, and it is moved. A last few bytes are saved where the layer is encoded, by moving levels towards zero."""

    share: Tensor

    def count_bytes(self, encoding: CodedTernary) -> None:
        levels = self.start.levels
        size = encoding.counted(levels, self.start.variant)[2] if levels.any() else 1.0
        self.count_in(Room(encoding, self.start, size))
        self.register_buffer("share", torch.tensor((levels == 0).mean(), dtype=torch.float64))

    def hold(self) -> None:
        excess = self.room.excess(self.ratio())
        self.share.copy_(1 - (1 - self.share) * (1 - max(-STEP, min(STEP, excess))))

    @torch.no_grad()
    def encoded(self, gain: Floats, bias: Floats) -> EncodedLayer:
        scale = (self.scale().reshape(-1).numpy() * gain).astype("float32")
        return self.room.filled(self.start, self.ratio(), self.position(), scale).rescaled(scale, bias)


class PrunedAtRate(_AtRate, Pruned):
    """Begins with the levels that recovery chose."""

    def __init__(
        self, weight: Floats, nearest: EncodedLayer, start: EncodedLayer, encoding: CodedTernary, decay: float
    ) -> None:
        super().__init__(weight, nearest, start, zeros=0.0, decay=decay)
        self.count_bytes(encoding)

    def zeros(self) -> float:
        return float(self.share)


class MeanThresholdAtRate(_AtRate, MeanThreshold):
    """The threshold, the same multiple of the mean in all channels, is not 0.7 but as high as the bytes ask for."""

    def __init__(self, weight: Floats, nearest: EncodedLayer, start: EncodedLayer, encoding: CodedTernary) -> None:
        super().__init__(weight, nearest, start)
        self.count_bytes(encoding)

    @torch.no_grad()
    def threshold(self) -> float:
        magnitude = self.latent.abs()
        means = magnitude / magnitude.mean((1, 2, 3), keepdim=True).clamp(min=1e-12)
        count = round(float(self.share) * means.numel())
        return float(means.reshape(-1).kthvalue(count).values) if count else 0.0
