"""Levels on their way to a neighbour: rounding that is learned.

As AdaRound (arXiv 2004.10568, section 4) relaxes rounding up or down to a number between 0 and 1, each level here may go
to either neighbour on its encoding's grid: an offset between -1 and 1 steps is trained, and drawn to -1, 0 and 1.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bitplan.encodings import EncodedLayer, encoding_of
from bitplan.encodings.coded import Coded
from bitplan.encodings.levels import LevelEncoding
from bitplan.encodings.xor import Xor
from bitplan.operations import shared

FARTHEST_START = 0.45
"""Offsets begin on the way to the full-precision weight, but so that without any force they return to their level."""


class Moves:
    """The offsets of a layer's levels, float32 [out, in / groups, height, width], in steps of the grid."""

    def __init__(self, layer: EncodedLayer, weight: NDArray[np.float32]) -> None:
        """`weight`, shaped as the levels, is what the offsets begin on the way to."""
        encoding = encoding_of(layer.variant)
        assert isinstance(encoding, LevelEncoding)
        self.layer = layer
        size, rows = layer.levels.shape, len(layer.scale)
        grid = encoding.grid(layer).to(rows, layer.levels.size // rows)
        lowest, step, highest = (x.reshape(size).astype(np.float32) for x in (grid.lowest, grid.step, grid.highest))
        scale = layer.scale.reshape(-1, 1, 1, 1)
        wanted = (weight / np.where(scale > 0, scale, 1) - layer.levels) / step
        self.low = shared(np.maximum((lowest - layer.levels) / step, -1))
        self.high = shared(np.minimum((highest - layer.levels) / step, 1))
        self.step, self.width = step, shared(np.where(scale > 0, scale, 0) * step)
        start = shared(np.clip(wanted, -FARTHEST_START, FARTHEST_START).astype(np.float32))
        self.offset = start.clamp(self.low, self.high).requires_grad_()

    @staticmethod
    def possible(layer: EncodedLayer) -> bool:
        """Whether single levels may change at all: not where all follow from one code."""
        return isinstance(encoding_of(layer.variant), LevelEncoding) and not isinstance(encoding_of(layer.variant), Xor)

    def change(self) -> Tensor:
        """What the offsets add to the layer's weight."""
        return self.offset * self.width

    def indecision(self, sharpness: float) -> Tensor:
        """The mean of 1 - |2 |offset| - 1|^sharpness: 0 where all levels have arrived, 1 where all are half way."""
        return (1 - (2 * self.offset.abs() - 1).abs() ** sharpness).mean()

    @torch.no_grad()
    def constrain(self) -> None:
        """Keeps the offsets on the grid, at most one step away."""
        self.offset.copy_(self.offset.clamp(self.low, self.high))

    def arrived(self) -> EncodedLayer:
        """The layer with every level where its offset is nearest to; of levels in entropy code, as many go back towards
        zero as the rate asks for."""
        offset = self.offset.detach().numpy()
        levels = (self.layer.levels + np.rint(offset) * self.step).astype(np.int8)
        encoding = encoding_of(self.layer.variant)
        if isinstance(encoding, Coded):
            levels = encoding.shrink(
                levels, self.layer.variant, self.layer.levels + offset * self.step, self.layer.scale.astype(float) ** 2
            )
        return replace(self.layer, levels=levels)
