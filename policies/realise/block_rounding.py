"""Rounding learned block by block, so that what a block hands on comes back (BRECQ, arXiv 2102.05426).

Behind the blocks that are done, the offsets of a block's levels (moves.py), its scales and its biases are trained by Adam
on the relative squared error of the block's outputs against full precision, activations read in codes. First the error
alone counts; then levels are drawn to the grid, ever more sharply (AdaRound, arXiv 2004.10568, section 4); at the end they
are put there, and scales and biases settle. A block stays as it was where that does not lower its error on images that are
held back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import cos, pi

import numpy as np
import torch
from torch import Tensor

from bitplan.encodings import EncodedLayer
from bitplan.formats import Ranges, derive_formats
from bitplan.policies.realise.blocks import Block, blocks_of
from bitplan.policies.realise.checkpoint import LayerRecords
from bitplan.policies.realise.distil import relative
from bitplan.policies.realise.front import Front, Images, count_images, default_batch, peak_bytes, take
from bitplan.policies.realise.moves import Moves
from bitplan.policies.realise.trainable import Trainable, output_units
from bitplan.simulate import Simulator
from bitplan.variant import F32

STEPS = 400
"""Of Adam, for each block."""
BATCH = 32
RATE = 2e-3
"""Of scales and biases."""
MOVING_RATE = 1e-2
"""Of offsets, in steps of the grid."""
FREE = 0.2
"""Share of the steps without a pull to the grid."""
ARRIVAL = 0.85
"""Share of the steps after which the levels are put on the grid."""
PULL = 30.0
"""Weight of the mean indecision, in errors that the block begins with."""
SHARPNESS = (20.0, 2.0)
"""From the first pulled step to the last."""

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
    """Trains blocks; `units` are those of the layers' biases (trainable.py)."""

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
        after = self._trained(block, {**layers}, before, fitted, seed)
        old, new = (
            held_back.behind(block, {**layers, **changed}, self.ranges).error(block.outputs)
            for changed in (before, after)
        )
        return after if new < old else before

    def _trained(
        self, block: Block, layers: dict[str, EncodedLayer], before: Layers, fitted: Sides, seed: int
    ) -> dict[str, EncodedLayer]:
        moves = {
            name: Moves(layer, self._weight(name, layer)) for name, layer in before.items() if Moves.possible(layer)
        }
        units = {name: self.units[name] for name in before}
        trainable = Trainable(self.simulator, layers, self.ranges, units, moves)
        inputs, full = gathered(fitted.quantised), gathered(fitted.behind(block, layers, self.ranges).full)
        count = len(next(iter(full.values())))
        random = np.random.default_rng(seed)
        optimiser = torch.optim.Adam(
            [
                {"params": trainable.parameters, "rate": RATE},
                {"params": [each.offset for each in moves.values()], "rate": MOVING_RATE},
            ],
            RATE,
        )
        arrival, first = int(ARRIVAL * STEPS), 0.0
        for step in range(STEPS):
            if step == arrival:
                trainable.settle()
            for group in optimiser.param_groups:
                group["lr"] = group["rate"] * (1 + cos(pi * step / STEPS)) / 2
            chosen = torch.from_numpy(random.choice(count, min(BATCH, count), replace=False))
            made = trainable.run({name: x[chosen] for name, x in inputs.items()}, block.start, block.stop)
            error = torch.stack([relative(full[name][chosen], made[name]) for name in block.outputs]).mean()
            first = first or float(error)
            done = (step - FREE * STEPS) / (arrival - FREE * STEPS)
            pull = torch.zeros(())
            if 0 <= done < 1 and trainable.moves:
                sharpness = SHARPNESS[1] + (SHARPNESS[0] - SHARPNESS[1]) * (1 + cos(pi * done)) / 2
                pull = torch.stack([each.indecision(sharpness) for each in trainable.moves.values()]).mean()
            optimiser.zero_grad()
            torch.autograd.backward(error + PULL * first * pull)
            optimiser.step()
            for each in trainable.moves.values():
                each.constrain()
        trainable.settle()
        tuned = trainable.tuned()
        return {name: tuned[name] for name in before}

    def _weight(self, name: str, layer: EncodedLayer) -> np.ndarray:
        """The layer's weight in full precision, shaped as its levels."""
        weight = self.simulator.arrays(self.simulator.network.by_name[name])[0].numpy()
        return np.asarray(weight, np.float32).reshape(layer.levels.shape)
