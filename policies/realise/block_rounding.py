"""Levels, scales and biases bettered block by block, so that what a block hands on comes back (BRECQ, arXiv 2102.05426).

Behind the blocks that are done, the relative squared error of a block's outputs against full precision is lowered, with
activations read in codes: by steps of single levels, to either neighbour on the grid, and by Adam on scales and biases
before and after. A step is worth what the second-order expansion of the error says (as in AdaRound, arXiv 2004.10568,
section 3, with slopes by backpropagation and a diagonal Gauss-Newton matrix): the best ones of each row are taken together
and kept if the error falls. A block stays as it was where its error on images that are held back does not fall.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import cos, pi

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bitplan.encodings import EncodedLayer
from bitplan.formats import Ranges, derive_formats
from bitplan.policies.realise.blocks import Block, blocks_of
from bitplan.policies.realise.checkpoint import LayerRecords
from bitplan.policies.realise.distil import TINY, relative
from bitplan.policies.realise.front import Front, Images, count_images, default_batch, peak_bytes, slices, take
from bitplan.policies.realise.moves import Moves
from bitplan.policies.realise.trainable import Trainable, output_units
from bitplan.simulate import Simulator
from bitplan.variant import F32

BATCH = 32
SETTLING = 40
"""Steps of Adam on scales and biases, before levels move and again behind."""
RATE = 2e-3
"""Of Adam, at the beginning."""
ROUNDS = 12
"""Of steps of levels at most, each of which costs a pass over the images forwards and backwards."""
STEPS_OF = 64
"""In the first round one level of so many in a row may step."""
PROBES = 6
"""Minibatches that curvatures are estimated from."""

Layers = Mapping[str, EncodedLayer]


def learn_rounding(
    simulator: Simulator,
    layers: Layers,
    ranges: Ranges,
    fitted: Images,
    held_back: Images,
    *,
    memory: int,
    finished: LayerRecords | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, EncodedLayer]:
    """The layers with levels moved by at most one step of their grid, other scales and biases, or as they were; float32
    layers and ranges stay. `memory` bounds the bytes of the values that are kept, and with them the images; `progress` is
    told the blocks done and all of them; `finished` holds the layers of blocks that are done."""
    found, finished = dict(layers), finished or LayerRecords(None, "")
    most = max(1, memory // (2 * peak_bytes(simulator)))
    fitted, held_back = (take(images, slice(min(count_images(images), most))) for images in (fitted, held_back))
    learner = Learner(simulator, ranges, output_units(simulator, layers, take(fitted, slice(BATCH))))
    sides = (Sides.of(simulator, fitted), Sides.of(simulator, held_back))
    blocks = blocks_of(simulator)
    for done, block in enumerate(blocks):
        known = _known(simulator, block, found, finished)
        if known is None:
            known = learner.learned(block, found, *sides, seed=done)
            for name, layer in known.items():
                finished.add(name, layer)
        found |= known
        if done + 1 < len(blocks):
            for side in sides:
                side.advance(block.stop, found, ranges)
        if progress:
            progress(done + 1, len(blocks))
    return found


def _known(
    simulator: Simulator, block: Block, layers: Layers, finished: LayerRecords
) -> dict[str, EncodedLayer] | None:
    """The layers of a block that is done; None unless all of them are there."""
    network, known = simulator.network, {}
    for name in block.layers:
        if layers[name].variant.activation == F32:
            continue
        layer = finished.get(name, network.weight_shape(network.by_name[name]), layers[name].variant)
        if layer is None:
            return None
        known[name] = layer
    return known


@dataclass
class Sides:
    """The same images in the full-precision network and in the quantised one, at the same point."""

    full: Front
    quantised: Front

    @classmethod
    def of(cls, simulator: Simulator, images: Images) -> Sides:
        front = Front.of_images(simulator, images, default_batch(simulator.network))
        return cls(front, front.fork())

    def advance(self, stop: int, layers: Layers, ranges: Ranges) -> None:
        """Executes nodes up to `stop` in both."""
        formats = derive_formats(self.full.simulator.network, {name: layer.variant for name, layer in layers.items()})
        self.full.advance(stop)
        self.quantised.advance(stop, layers, ranges, formats)

    def behind(self, block: Block, layers: Layers, ranges: Ranges) -> Sides:
        """Both behind the block, under these layers."""
        ahead = Sides(self.full.fork(), self.quantised.fork())
        ahead.advance(block.stop, layers, ranges)
        return ahead

    def error(self, outputs: tuple[str, ...]) -> float:
        """The mean relative error of these values."""
        full, quantised = gathered(self.full), gathered(self.quantised)
        return float(torch.stack([relative(full[name], quantised[name]) for name in outputs]).mean())


def gathered(front: Front) -> dict[str, Tensor]:
    """The values of all batches, by name; copies, so that gradients may flow through what is made of them."""
    return {name: torch.cat([values[name] for values in front.batches]) for name in front.batches[0]}


@dataclass(frozen=True)
class Learner:
    """Lowers the error of blocks; `units` are those of the layers' biases (trainable.py)."""

    simulator: Simulator
    ranges: Ranges
    units: Mapping[str, float]

    def learned(
        self, block: Block, layers: Layers, fitted: Sides, held_back: Sides, *, seed: int
    ) -> dict[str, EncodedLayer]:
        """The quantised layers of a block in front of which both sides stand."""
        before = {name: layers[name] for name in block.layers if layers[name].variant.activation != F32}
        if not before:
            return {}
        rows = Rows(gathered(fitted.quantised), gathered(fitted.behind(block, layers, self.ranges).full))
        random = np.random.default_rng(seed)
        after = self.settled(block, layers, before, rows, random)
        after = self.stepped(block, layers, after, rows, random)
        after = self.settled(block, layers, after, rows, random)
        old, new = (
            held_back.behind(block, {**layers, **changed}, self.ranges).error(block.outputs)
            for changed in (before, after)
        )
        return after if new < old else before

    def stepped(
        self, block: Block, layers: Layers, own: Layers, rows: Rows, random: np.random.Generator
    ) -> dict[str, EncodedLayer]:
        """`own` layers after rounds of steps of single levels: each is kept if the error falls, else half as many are
        tried."""
        found = {name: layer for name, layer in own.items() if Moves.possible(layer)}
        if not found:
            return dict(own)
        curvature = self._curvature(block, {**layers, **own}, list(found), rows, random)
        least, slope = self._slope(block, {**layers, **own}, list(found), rows)
        most = {name: max(1, layer.shape.reduction // STEPS_OF) for name, layer in found.items()}
        for _ in range(ROUNDS):
            tried = {
                name: Moves(layer).taken(slope[name], curvature[name], most[name]) for name, layer in found.items()
            }
            error, steeper = self._slope(block, {**layers, **own, **tried}, list(found), rows)
            if error < least:
                found, least, slope = tried, error, steeper
            elif max(most.values()) == 1:
                break
            else:
                most = {name: max(1, count // 2) for name, count in most.items()}
        return {**own, **found}

    def settled(
        self, block: Block, layers: Layers, own: Layers, rows: Rows, random: np.random.Generator
    ) -> dict[str, EncodedLayer]:
        """`own` layers after training of their scales and biases, by Adam with a cosine schedule."""
        units = {name: self.units[name] for name in own}
        trainable = Trainable(self.simulator, {**layers, **own}, self.ranges, units)
        optimiser = torch.optim.Adam(trainable.parameters, RATE)
        for number in range(SETTLING):
            optimiser.param_groups[0]["lr"] = RATE * (1 + cos(pi * number / SETTLING)) / 2
            chosen = random.choice(rows.count, min(BATCH, rows.count), replace=False)
            optimiser.zero_grad()
            torch.autograd.backward(self._error(trainable, block, rows, chosen))
            optimiser.step()
        tuned = trainable.tuned()
        return {name: tuned[name] for name in own}

    def _slope(
        self, block: Block, layers: Layers, names: list[str], rows: Rows
    ) -> tuple[float, dict[str, NDArray[np.float32]]]:
        """The mean error, and its derivative by the offsets of the levels of each of these layers."""
        moves = {name: Moves(layers[name]) for name in names}
        trainable = Trainable(self.simulator, layers, self.ranges, {}, moves)
        total = 0.0
        for part in slices(0, rows.count, BATCH):
            error = self._error(trainable, block, rows, np.arange(part.start, part.stop))
            share = (part.stop - part.start) / rows.count
            torch.autograd.backward(share * error)
            total += share * error.item()
        return total, {name: _gradient(each.offset) for name, each in moves.items()}

    def _curvature(
        self, block: Block, layers: Layers, names: list[str], rows: Rows, random: np.random.Generator
    ) -> dict[str, NDArray[np.float32]]:
        """The diagonal of the Gauss-Newton matrix by the offsets: with signs v at random, the mean of (J' v)^2."""
        found = {name: np.zeros(layers[name].levels.shape, np.float32) for name in names}
        for _ in range(PROBES):
            moves = {name: Moves(layers[name]) for name in names}
            trainable = Trainable(self.simulator, layers, self.ranges, {}, moves)
            chosen = torch.from_numpy(random.choice(rows.count, min(BATCH, rows.count), replace=False))
            made = trainable.run({name: x[chosen] for name, x in rows.read.items()}, block.start, block.stop)
            total = torch.zeros(())
            for name in block.outputs:
                variance = float(rows.full[name].var(correction=0))
                if variance <= TINY:  # a dead value
                    continue
                signs = torch.from_numpy(random.choice(np.array([-1, 1], np.float32), tuple(made[name].shape)))
                weight = 2 / (len(block.outputs) * made[name].numel() * variance)
                total = total + weight**0.5 * (signs * made[name]).sum()
            if total.requires_grad:
                torch.autograd.backward(total)
            for name, each in moves.items():
                found[name] += _gradient(each.offset) ** 2 / PROBES
        return found

    def _error(self, trainable: Trainable, block: Block, rows: Rows, chosen: NDArray[np.int64]) -> Tensor:
        """The mean relative error of a block's outputs on some of the images."""
        numbers = torch.from_numpy(chosen)
        made = trainable.run({name: x[numbers] for name, x in rows.read.items()}, block.start, block.stop)
        return torch.stack([relative(rows.full[name][numbers], made[name]) for name in block.outputs]).mean()


@dataclass(frozen=True)
class Rows:
    """What a block reads behind the quantised prefix, and what it hands on in full precision, of the same images."""

    read: Mapping[str, Tensor]
    full: Mapping[str, Tensor]

    @property
    def count(self) -> int:
        return len(next(iter(self.full.values())))


def _gradient(parameter: Tensor) -> NDArray[np.float32]:
    return np.zeros(parameter.shape, np.float32) if parameter.grad is None else parameter.grad.numpy()
