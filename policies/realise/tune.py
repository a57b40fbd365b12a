"""Scales and biases of all layers tuned together, so that the network's outputs come back.

Distillation from the full-precision network without labels (distil.py), by Adam (arXiv 1412.6980) with a cosine schedule.
Images that are held back decide: the state of least distance on them is kept, the one before tuning included, as the
simulator computes it, which computes as the runtime does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import cos, pi

import numpy as np
import torch
from numpy.typing import NDArray

from bitplan.encodings import EncodedLayer
from bitplan.formats import Ranges
from bitplan.policies.realise.checkpoint import Records
from bitplan.policies.realise.distil import Distance, held_back_distance
from bitplan.policies.realise.front import Images, count_images, slices, take
from bitplan.policies.realise.trainable import Trainable, output_units
from bitplan.recovery_names import DEFAULT_TUNE_EPOCHS
from bitplan.simulate import Simulator
from bitplan.variant import F32

BATCH = 32
RATE = 2e-3
"""Of Adam, at the beginning: a step changes a scale by about so large a fraction of itself."""

Layers = Mapping[str, EncodedLayer]


def tune(
    simulator: Simulator,
    layers: Layers,
    ranges: Ranges,
    fitted: Images,
    held_back: Images,
    *,
    epochs: int = DEFAULT_TUNE_EPOCHS,
    records: Records | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, EncodedLayer]:
    """The layers with other scales and biases, or as they were; levels, float32 layers and ranges stay. `progress` is
    told the epochs done and all of them; `records` hold each epoch's end."""
    if all(layer.variant.activation == F32 for layer in layers.values()):
        return dict(layers)
    distance = Distance(simulator.network)
    size = min(BATCH, count_images(fitted))
    trainable = Trainable(simulator, layers, ranges, output_units(simulator, layers, take(fitted, slice(size))))
    optimiser = torch.optim.Adam(trainable.parameters, RATE)
    state = State.load(records, trainable, optimiser)
    if state is None:
        before = held_back_distance(simulator, distance, layers, ranges, held_back, size)
        state = State(0, before, trainable.vector())
    for epoch in range(state.epoch, epochs):
        _one_epoch(trainable, optimiser, distance, fitted, size, epoch, epochs)
        found = held_back_distance(simulator, distance, trainable.tuned(), ranges, held_back, size)
        better = found < state.distance
        state = State(epoch + 1, found if better else state.distance, trainable.vector() if better else state.best)
        state.save(records, trainable, optimiser)
        if progress:
            progress(epoch + 1, epochs)
    trainable.load(state.best)
    return trainable.tuned()


def _one_epoch(
    trainable: Trainable,
    optimiser: torch.optim.Optimizer,
    distance: Distance,
    images: Images,
    size: int,
    epoch: int,
    epochs: int,
) -> None:
    order = np.random.default_rng(epoch).permutation(count_images(images))
    parts = slices(0, len(order), size)
    for number, part in enumerate(parts):
        done = (epoch + number / len(parts)) / epochs
        optimiser.param_groups[0]["lr"] = RATE * (1 + cos(pi * done)) / 2
        batch = _chosen(images, order[part])
        full = trainable.simulator.values(batch, keep=distance.values)
        # Gradients do not flow through tensors of inference mode, not even into others: they are copied.
        teacher = {name: value.clone() for name, value in full.items()}
        # A layer that no output depends on has no gradient, but a state of the optimiser all the same.
        for parameter in trainable.parameters:
            parameter.grad = torch.zeros_like(parameter)
        torch.autograd.backward(distance.whole(teacher, trainable.values(batch, distance.values)))
        optimiser.step()


@dataclass(frozen=True)
class State:
    """Tuning at the end of an epoch: epochs done, the least held-back distance so far, and the parameters that had it."""

    epoch: int
    distance: float
    best: NDArray[np.float32]

    NAME = "tune"

    def save(self, records: Records | None, trainable: Trainable, optimiser: torch.optim.Optimizer) -> None:
        if records is None:
            return
        moments = [
            torch.cat([optimiser.state[p][name] for p in trainable.parameters]).numpy()
            for name in ("exp_avg", "exp_avg_sq")
        ]
        step = float(optimiser.state[trainable.parameters[0]]["step"])
        numbers = np.array([self.epoch, step, self.distance], np.float64).view(np.float32)
        records.add(self.NAME, np.concatenate([numbers, self.best, trainable.vector(), *moments]))

    @classmethod
    def load(cls, records: Records | None, trainable: Trainable, optimiser: torch.optim.Optimizer) -> State | None:
        """The last state that was saved, with parameters and optimiser as they were then."""
        found = None if records is None else records.records.get(cls.NAME)
        if found is None:
            return None
        epoch, step, distance = (float(x) for x in np.ascontiguousarray(found[:6]).view(np.float64))
        best, now, first, second = np.split(found[6:], 4)
        trainable.load(now)
        for parameter, m, v in zip(trainable.parameters, *map(trainable.split, (first, second)), strict=True):
            optimiser.state[parameter] = {"step": torch.tensor(step), "exp_avg": m, "exp_avg_sq": v}
        return cls(int(epoch), distance, best)


def _chosen(images: Images, numbers: NDArray[np.int64]) -> Images:
    return images[numbers] if isinstance(images, np.ndarray) else {n: array[numbers] for n, array in images.items()}
