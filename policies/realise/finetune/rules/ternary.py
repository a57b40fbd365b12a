"""ternary: levels -1, 0, 1 with a learned step, by TWN's threshold (arXiv 1605.04711), or by pruning (PTQ)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bitplan.encodings import EncodedLayer
from bitplan.policies.realise.finetune.gradients import decayed, straight_through
from bitplan.policies.realise.finetune.rules.base import Floats, Rule, level_of, within_cells

TWN_THRESHOLD = 0.7
"""Of the mean magnitude: the optimum for normal weights, about."""


class LearnedStep(Rule):
    """The whole numbers in -1..1 nearest to the latent weight in steps, with a learned scale. Thresholds stay where they
    are in the latent weight: under a step that both are learned by, as in LSQ, the scale's straight-through gradient
    counts what a longer step takes from the sum of the levels, and misses most of what it adds to it."""

    def placed(self, latent: Tensor, levels: Tensor) -> Tensor:
        return within_half_a_step(latent, levels)

    def ratio(self) -> Tensor:
        r = self.steps()
        return level_of(r.round().clamp(-1, 1), r, -1.5, 1.5)


class MeanThreshold(Rule):
    """sign(latent) where |latent| exceeds 0.7 of its channel's mean, with a learned scale."""

    def threshold(self) -> float:
        """Of |latent|, in means of its channel."""
        return TWN_THRESHOLD

    def ratio(self) -> Tensor:
        magnitude = self.latent.abs()
        kept = magnitude > self.threshold() * magnitude.mean((1, 2, 3), keepdim=True)
        return straight_through(self.latent.sign() * kept, self.latent)


class Pruned(Rule):
    """Pruning ternary quantization (arXiv 2107.10998), reconstructed: latent weights have the L2 norm of their first
    values, by channel; the smallest of the layer are zero, a fraction that grows during training from that of the start
    to `zeros`; weight decay lies in the straight-through estimator. The scale, 1 / sqrt(number of nonzeros) there with
    batch norm behind it, is learned. It begins with the levels that recovery chose: in steps of their channel, their
    threshold is the same in the whole layer."""

    PRUNED_BY = 0.6
    """Fraction of training after which the pruning ratio has its last value."""

    def __init__(
        self, weight: Floats, nearest: EncodedLayer, start: EncodedLayer, *, zeros: float, decay: float
    ) -> None:
        super().__init__(weight, nearest, start)
        self.decay = decay
        self.first_zeros, self.last_zeros = float((start.levels == 0).mean()), zeros
        self.ratio_of_zeros = self.first_zeros
        self.norm = self.latent.detach().flatten(1).norm(dim=1).view(-1, 1, 1, 1)

    def placed(self, latent: Tensor, levels: Tensor) -> Tensor:
        return within_half_a_step(latent, levels)

    def advance(self, progress: float) -> None:
        # Zhu and Gupta (arXiv 1710.01878): fast while much is superfluous, slow at the end.
        left = (1 - min(1.0, progress / self.PRUNED_BY)) ** 3
        self.ratio_of_zeros = self.last_zeros + (self.first_zeros - self.last_zeros) * left

    def zeros(self) -> float:
        """The fraction of zeros at present."""
        return self.ratio_of_zeros

    def ratio(self) -> Tensor:
        latent = decayed(self.latent, self.decay)
        magnitude = self.latent.detach().abs()
        count = round(self.zeros() * magnitude.numel())
        threshold = magnitude.reshape(-1).kthvalue(count).values if count else magnitude.new_tensor(-1.0)
        return straight_through(self.latent.sign() * (magnitude > threshold), latent)

    def weights(self) -> list[nn.Parameter]:
        """None: their decay lies in the estimator."""
        return []

    @torch.no_grad()
    def constrain(self) -> None:
        norm = self.latent.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        self.latent.mul_(self.norm / norm.clamp(min=1e-12))


def within_half_a_step(latent: Tensor, levels: Tensor) -> Tensor:
    """Latent weights in steps, with half a step as the threshold of these levels."""
    low = torch.where(levels < 0, -torch.inf, levels - 0.5)
    high = torch.where(levels > 0, torch.inf, levels + 0.5)
    return within_cells(latent, low, high)


def ternary_rule(
    weight: Floats, nearest: EncodedLayer, start: EncodedLayer, kind: str, zeros: float, decay: float
) -> Rule:
    """The rule of that name: learned, twn or ptq."""
    if kind == "ptq":
        return Pruned(weight, nearest, start, zeros=zeros, decay=decay)
    return LearnedStep(weight, nearest, start) if kind == "learned" else MeanThreshold(weight, nearest, start)
