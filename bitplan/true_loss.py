"""The loss that a policy really has on calibration images: realised with recovery, then executed.

Half of the images are those that recovery is fitted to, half are held back. The front of a policy that was evaluated
before is not realised again: up to the first layer that differs, everything is as it was. So a policy that differs from
an earlier one in the middle layer costs about half as much.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bitplan.encodings import EncodedLayer
from bitplan.formats import Formats, derive_formats
from bitplan.network import Network, Weights
from bitplan.policies.menu import Menu
from bitplan.policies.realise.calibrate import calibrate
from bitplan.policies.realise.front import Front, Images, count_images, default_batch, peak_bytes, slices, take
from bitplan.policies.realise.pipeline import code_formats, quantise
from bitplan.policies.realise.steps import recoveries
from bitplan.policies.realise.subject import Subject
from bitplan.profiles.metrics import Increase, Labels, increase
from bitplan.recovery_names import CORRECT, DEFAULT_RANGES
from bitplan.simulate import Simulator
from bitplan.variant import Variant

Losses = NDArray[np.float32]

MEMORY = 2 << 30
"""Bytes that the values of the kept fronts may take."""
TRACES = 3
"""Policies whose fronts are kept, those used last: the one that is being improved is among them."""


@dataclass(frozen=True)
class Half:
    """Images with the function that measures their loss increases."""

    images: Images
    loss: Increase


@dataclass(frozen=True)
class Checkpoint:
    """The fronts that stand before a layer (by its number), and the layers realised so far."""

    number: int
    full: Front
    quantised: Front
    held_back: Front
    layers: Mapping[str, EncodedLayer]


@dataclass
class Trace:
    """A policy that was evaluated, and its checkpoints from the first layer on."""

    variants: Mapping[str, Variant]
    formats: Formats
    checkpoints: list[Checkpoint] = field(default_factory=list)


class TrueLoss:
    """Measures policies of one menu on raw images [N, C, H, W]; see optimizer/polish.py for what it is called with."""

    def __init__(
        self,
        network: Network,
        weights: Weights,
        images: tuple[Images, Images],
        menu: Menu,
        *,
        metric: str = "kl",
        temperature: float = 1.0,
        labels: tuple[Labels | None, Labels | None] = (None, None),
        recovery: Sequence[str] = (CORRECT,),
        range_method: str = DEFAULT_RANGES,
        batch: int | None = None,
        memory: int = MEMORY,
    ) -> None:
        """`images`, `labels`: those that recovery is fitted to, and those held back. `temperature`: that of the outputs for
        the metric kl. `recovery`: its steps that act on one layer at a time; `range_method`: how activation ranges are
        found."""
        self.recoveries = recoveries(recovery)
        self.network, self.weights = network, weights
        self.simulator = Simulator(network, weights)
        self.batch = batch or default_batch(network)
        self.fitted, self.held_back = (
            self._half(part, metric, known, temperature) for part, known in zip(images, labels, strict=True)
        )
        formats = code_formats(variant for variants in menu.values() for variant in variants)
        self.ranges = calibrate(self.simulator, self.fitted.images, formats, batch=self.batch, method=range_method)
        count = 2 * count_images(self.fitted.images) + count_images(self.held_back.images)
        affordable = max(1, memory // (TRACES * count * peak_bytes(self.simulator)))
        self.stride = -(-len(network.layers) // affordable)
        self.traces: list[Trace] = []
        self.walked = 0
        """Layers realised so far, for those who count."""

    def __call__(self, variants: Mapping[str, Variant]) -> tuple[Losses, Losses]:
        """The loss increases of every image: fitted to [N], held back [M]."""
        formats = derive_formats(self.network, variants)
        start, used = self._start(variants, formats)
        kept = [] if used is None else [c for c in used.checkpoints if c.number <= start.number]
        trace = Trace(dict(variants), formats, kept)
        full, quantised, held_back = start.full.fork(), start.quantised.fork(), start.held_back.fork()
        layers = dict(start.layers)
        for number, node in enumerate(self.network.layers[start.number :], start.number):
            position = self.network.nodes.index(node)
            full.advance(position)
            quantised.advance(position, layers, self.ranges, formats)
            held_back.advance(position, layers, self.ranges, formats)
            if number % self.stride == 0 and number > start.number:
                state = full.fork(), quantised.fork(), held_back.fork()
                trace.checkpoints.append(Checkpoint(number, *state, dict(layers)))
            layer = quantise(self.network, node, self.weights, variants[node.name])
            subject = Subject(node, full, quantised, self.ranges, formats)
            for recover in self.recoveries:
                layer = recover(subject, layer)
            layers[node.name] = layer
            self.walked += 1
        self._remember(trace, used)
        ends = []
        for front, half in ((quantised, self.fitted), (held_back, self.held_back)):
            front.advance(len(self.network.nodes), layers, self.ranges, formats)
            ends.append(self._losses(front, half))
        return ends[0], ends[1]

    def _start(self, variants: Mapping[str, Variant], formats: Formats) -> tuple[Checkpoint, Trace | None]:
        """The last checkpoint of an earlier policy up to which this one is the same, and that policy."""
        best: tuple[Checkpoint, Trace | None] | None = None
        for trace in self.traces:
            number = self._shared(trace, variants, formats)
            for checkpoint in trace.checkpoints:
                if checkpoint.number <= number and (best is None or checkpoint.number > best[0].number):
                    best = checkpoint, trace
        return best or (self._beginning(), None)

    def _shared(self, trace: Trace, variants: Mapping[str, Variant], formats: Formats) -> int:
        """The number of the last layer up to which nothing differs: no variant of an earlier layer, and in no earlier
        node how its input is read. Below zero: not even the first."""
        number = 0
        for node in self.network:
            layer = node.name in variants
            same = trace.formats.read.get(node.name) == formats.read.get(node.name)
            if not (same and (not layer or trace.variants[node.name] == variants[node.name])):
                # a checkpoint stands behind the operations that lie before its layer
                return number if layer else number - 1
            number += layer
        return number

    def _beginning(self) -> Checkpoint:
        full = Front.of_images(self.simulator, self.fitted.images, self.batch)
        held_back = Front.of_images(self.simulator, self.held_back.images, self.batch)
        return Checkpoint(0, full, full.fork(), held_back, {})

    def _remember(self, trace: Trace, used: Trace | None) -> None:
        """Forgets the trace that has served longest ago."""
        others = [other for other in self.traces if other is not used]
        self.traces = ([used, trace, *others] if used else [trace, *others])[:TRACES]

    def _half(self, images: Images, metric: str, labels: Labels | None, temperature: float) -> Half:
        parts = []
        for part in slices(0, count_images(images), self.batch):
            outputs = self.simulator.outputs(take(images, part))
            parts.append({name: value.numpy() for name, value in outputs.items()})
        full = {name: np.concatenate([part[name] for part in parts]) for name in self.network.outputs}
        return Half(images, increase(self.network, metric, full, labels, temperature))

    def _losses(self, front: Front, half: Half) -> Losses:
        found = []
        parts = slices(0, count_images(half.images), self.batch)
        for part, values in zip(parts, front.batches, strict=True):
            outputs = {name: values[name].numpy() for name in self.network.outputs}
            found.append(half.loss(outputs, part))
        return np.concatenate(found)
