"""Encodings of evenly spaced levels (int8, int6 ... int2): a learned step (LSQ, arXiv 1902.08153)."""

from __future__ import annotations

import torch
from torch import Tensor

from bitplan.encodings import EncodedLayer, encoding_of
from bitplan.encodings.levels import LevelEncoding
from bitplan.policies.realise.finetune.rules.base import Floats, Rule, level_of, within_cells


class Grid(Rule):
    """r = steps exp(-rho) is rounded to the levels of the encoding: the whole numbers in -top..top, such as those of
    int8, or the odd ones. With straight-through, dw/dscale = q - r inside and q outside the grid. The gradient of
    the scale is divided by sqrt(K top), K weights per channel, as LSQ does."""

    def __init__(self, weight: Floats, nearest: EncodedLayer, start: EncodedLayer) -> None:
        encoding = encoding_of(start.variant)
        assert isinstance(encoding, LevelEncoding)
        grid = encoding.grid(start)
        self.odd = bool((grid.step == 2).all())
        self.top = float(grid.highest.max())
        self.half_cell = 1.0 if self.odd else 0.5
        super().__init__(weight, nearest, start)
        divisor = (self.latent[0].numel() * self.top) ** 0.5
        self.rho.register_hook(lambda gradient: gradient / divisor)  # type: ignore[no-untyped-call]

    def placed(self, latent: Tensor, levels: Tensor) -> Tensor:
        low = torch.where(levels <= -self.top, -torch.inf, levels - self.half_cell)
        high = torch.where(levels >= self.top, torch.inf, levels + self.half_cell)
        return within_cells(latent, low, high)

    def position(self) -> Tensor:
        return self.steps() * (-self.rho).exp()

    def ratio(self) -> Tensor:
        r = self.position()
        nearest = 2 * (r / 2).floor() + 1 if self.odd else r.round()
        reach = self.top + self.half_cell
        return level_of(nearest.clamp(-self.top, self.top), r, -reach, reach)
