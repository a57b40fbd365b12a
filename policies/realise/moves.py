"""Single steps of levels, and what each is worth to an error that gradients are known of."""

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

Floats = NDArray[np.float32]


class Moves:
    """Offsets of a layer's levels, float32 [out, in / groups, height, width], in steps of their grid: zeros, there to be
    differentiated by."""

    def __init__(self, layer: EncodedLayer) -> None:
        encoding = encoding_of(layer.variant)
        assert isinstance(encoding, LevelEncoding)
        self.layer = layer
        size, rows = layer.levels.shape, len(layer.scale)
        grid = encoding.grid(layer).to(rows, layer.levels.size // rows)
        lowest, self.step, highest = (x.reshape(size) for x in (grid.lowest, grid.step, grid.highest))
        self.down, self.up = layer.levels > lowest, layer.levels < highest
        """Whether a level has a neighbour there."""
        self.width = shared((layer.scale.reshape(-1, 1, 1, 1) * self.step).astype(np.float32))
        self.offset = torch.zeros(size, requires_grad=True)

    @staticmethod
    def possible(layer: EncodedLayer) -> bool:
        """Whether single levels may change at all: not where all follow from one code."""
        encoding = encoding_of(layer.variant)
        return isinstance(encoding, LevelEncoding) and not isinstance(encoding, Xor)

    def change(self) -> Tensor:
        """What the offsets add to the layer's weight."""
        return self.offset * self.width

    def taken(self, slope: Floats, curvature: Floats, most: int) -> EncodedLayer:
        """The layer after the best steps, at most `most` in each row [in / groups, height, width], of those that lower an
        error with this slope and curvature by the offsets, each looked at alone: by |slope| - curvature / 2. Of levels in
        entropy code, as many then go back towards zero as the rate asks for."""
        free = np.where(slope > 0, self.down, self.up)
        worth = np.where(free, np.abs(slope) - curvature / 2, 0.0).reshape(len(slope), -1)
        most = min(most, worth.shape[1])
        least = np.partition(worth, -most, 1)[:, -most, None]
        chosen = ((worth > 0) & (worth >= least)).reshape(slope.shape)
        levels = (self.layer.levels - np.where(chosen, np.sign(slope) * self.step, 0)).astype(np.int8)
        encoding = encoding_of(self.layer.variant)
        if isinstance(encoding, Coded) and chosen.any():
            levels = encoding.shrink(levels, self.layer.variant, importance=self.layer.scale.astype(np.float64) ** 2)
        return replace(self.layer, levels=levels)
