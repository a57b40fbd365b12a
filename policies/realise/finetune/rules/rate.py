"""coded, codedternary: levels that are chosen by error and bits, so that their entropy code stays within its bytes."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from bitplan.encodings import EncodedLayer
from bitplan.encodings.coded import Coded
from bitplan.policies.realise.finetune.rules.base import Floats, Rule, level_of, within_cells

EVERY = 10
"""Steps of the optimiser from one count of the bytes to the next."""
FILLED = 0.99
"""Of the bytes that there are: what the controller aims at, so that little has to be moved at the end."""
SMALLEST, LARGEST = 0.8, 1.02
"""Factors of the weights at one count."""
PRICES = (0.01, 0.02, 0.04, 0.07, 0.1, 0.13, 0.17, 0.22, 0.3, 0.4)
"""Squared steps per bit, of which the one is taken that explains most of the levels which recovery chose."""


class Room:
    """The bytes that a layer's coded levels may take, by the count of `Coded.counted`. Recovery's levels fit: what a count
    of them is above the capacity, it is wrong by. A layer that did not fill its bytes is not made to."""

    def __init__(self, encoding: Coded, start: EncodedLayer, size: float) -> None:
        """`size`: the count of the start's levels."""
        self.encoding, self.variant = encoding, start.variant
        self.allowed = FILLED * max(float(encoding.capacity(start.shape, start.variant)), size)
        self.wanted = min(self.allowed, FILLED * size)

    def size(self, levels: Tensor) -> float:
        found = levels.detach().numpy().astype(np.int8)
        return self.encoding.counted(found, self.variant)[2] if found.any() else 1.0

    def excess(self, levels: Tensor) -> float:
        """By which fraction levels take too much, or (negative) too little; zero between."""
        size = self.size(levels)
        if self.wanted <= size <= self.allowed:
            return 0.0
        return size / (self.allowed if size > self.allowed else self.wanted) - 1

    def filled(self, layer: EncodedLayer, levels: Tensor, ideal: Tensor, scale: Floats) -> EncodedLayer:
        """The layer with levels that fit to the byte: as many as needed of these are moved towards zero."""
        found = levels.detach().numpy().astype(np.int8)
        return replace(layer, levels=self.encoding.shrink(found, self.variant, ideal.detach().numpy(), scale**2))


class Counted(Rule):
    """A rule under which the bytes are counted every few steps."""

    room: Room
    done: Tensor

    def count_in(self, room: Room) -> None:
        """Begins counting."""
        self.room = room
        self.register_buffer("done", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def constrain(self) -> None:
        super().constrain()
        self.done.add_(1)
        if int(self.done) % EVERY == 0:
            self.hold()

    @abstractmethod
    def hold(self) -> None:
        """Counts the bytes, and brings them back to what they may be."""


class UnderRate(Counted):
    """Of the level nearest to a latent weight r in steps, the one below it and zero, that of least (r - q)^2 + price x
    bits(q), the bits being those of q in the weight's class of activity in the layer's entropy code
    (encodings/activity.py). The scale is learned beside it, and moves no threshold.

    Price, classes and bits stay those of the start: if they followed the levels, levels would follow them, and training
    would begin by losing what recovery gained. What holds the rate is the size of all weights: every few steps the bytes are
    counted, and the weights are scaled so that as many levels become smaller as there are bytes in excess. (A pull on the
    weights that are not zero gathers them at the threshold, where any step brings them back.) A last few bytes may have to
    be saved where the layer is encoded, by moving levels towards zero until all fit.
    """

    def __init__(self, weight: Floats, nearest: EncodedLayer, start: EncodedLayer, encoding: Coded) -> None:
        self.encoding, self.top = encoding, encoding.top
        super().__init__(weight, nearest, start)

    def placed(self, latent: Tensor, levels: Tensor) -> Tensor:
        """Begins with the bits of the levels that recovery chose."""
        self.classes = torch.zeros(levels.shape, dtype=torch.int64)
        self.lengths = torch.zeros(1, self.top + 1)
        size = 1.0
        if levels.any():
            classes, lengths, size = self.encoding.counted(self.start.levels, self.start.variant)
            self.classes, self.lengths = torch.from_numpy(classes.copy()), torch.from_numpy(lengths.astype(np.float32))
        self.count_in(Room(self.encoding, self.start, size))
        self.price = PRICES[0]
        agreeing = []
        for price in PRICES:
            self.price = price
            agreeing.append(int((self.levels(latent) == levels).sum()))
        self.price = PRICES[int(np.argmax(agreeing))]
        sign = torch.where(levels == 0, latent.sign(), levels.sign())
        found = sign * within_cells(sign * latent, *self.cells(levels))
        return torch.where(self.levels(found) == levels, found, levels)

    def cells(self, levels: Tensor) -> tuple[Tensor, Tensor]:
        """From where to where |r| has the magnitude of `levels`, about."""
        magnitude = levels.abs().long()
        return self.threshold(magnitude), self.threshold(magnitude + 1)

    def threshold(self, magnitude: Tensor) -> Tensor:
        """Where that magnitude becomes cheaper than the one below it; minus infinity for 0, infinity beyond the top."""
        inner = magnitude.clamp(1, self.top)
        more = self.bits(inner) - self.bits(inner - 1)
        found = (inner - 0.5 + self.price / 2 * more).clamp(min=0)
        return torch.where(magnitude < 1, -torch.inf, torch.where(magnitude > self.top, torch.inf, found))

    def bits(self, magnitude: Tensor) -> Tensor:
        """Of a magnitude for each weight, in its class."""
        return torch.take(self.lengths, self.classes * (self.top + 1) + magnitude)

    @torch.no_grad()
    def levels(self, r: Tensor) -> Tensor:
        """The levels that r is rounded to at the present price."""
        magnitude = r.abs()
        best = magnitude.round().clamp(max=self.top)
        nearest = best.long()
        least = (magnitude - best).square() + self.price * self.bits(nearest)
        for other in ((nearest - 1).clamp(min=0), torch.zeros_like(nearest)):
            cost = (magnitude - other).square() + self.price * self.bits(other)
            best = torch.where(cost < least, other.float(), best)
            least = torch.minimum(cost, least)
        return r.sign() * best

    def hold(self) -> None:
        r = self.position()
        levels = self.levels(r)
        if excess := self.room.excess(levels):
            self.latent.mul_(self._factor(r, levels, excess))

    def _factor(self, r: Tensor, levels: Tensor, excess: float) -> float:
        """By which `excess` of the levels that are not zero becomes smaller, or, where it is negative, as many zeros larger.
        That is more than brings the bytes back to the limit, for until the next count the excess grows again."""
        count = round(abs(excess) * int((levels != 0).sum()))
        lower, upper = self.cells(levels)
        ratios = (lower / r.abs())[levels != 0] if excess > 0 else (r.abs() / upper)[levels == 0]
        ratios = ratios[(ratios > 0) & (ratios < 1)]
        count = min(count, ratios.numel())
        if not count:
            return 1.0
        found = float(ratios.kthvalue(ratios.numel() + 1 - count).values)
        return max(found, SMALLEST) if excess > 0 else min(1 / found, LARGEST)

    def ratio(self) -> Tensor:
        r = self.position()
        reach = self.top + 0.5
        return level_of(self.levels(r), r, -reach, reach)

    @torch.no_grad()
    def encoded(self, gain: Floats, bias: Floats) -> EncodedLayer:
        scale = (self.scale().reshape(-1).numpy() * gain).astype(np.float32)
        ideal = self.position()
        return self.room.filled(self.start, self.levels(ideal), ideal, scale).rescaled(scale, bias)
