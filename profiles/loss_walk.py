"""The loop behind most estimators: all images move through the full-precision network together, layer by layer; at each
layer its variants are recovered, put in place one at a time, and the rest of the network is executed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from bitplan.encodings import EncodedLayer
from bitplan.formats import Formats, Ranges, derive_formats
from bitplan.network import Network, Node, Weights
from bitplan.policies.realise.calibrate import calibrate
from bitplan.policies.realise.front import Front, Images, count_images, peak_bytes, slices, take
from bitplan.policies.realise.pipeline import RECOVERIES, code_formats, quantise
from bitplan.policies.realise.subject import Subject
from bitplan.profiles.journal import Journal
from bitplan.profiles.metrics import Labels, Outputs
from bitplan.simulate import Simulator
from bitplan.variant import F32, FLOAT32, U8, Variant

Choice = tuple[str, Variant]
Vector = NDArray[np.float32]
Progress = Callable[[int, int, str], None]
Observation = Callable[[Outputs, slice], Vector]
"""What is kept of the changed network's outputs on the images in a slice: [n] or [n, numbers per image]."""


@dataclass(frozen=True)
class Job:
    """What is to be measured, and how; see `measure_loss.measure`."""

    network: Network
    weights: Weights
    images: Images
    choices: frozenset[Choice]
    metric: str
    labels: Labels | None
    batch: int
    memory: int


@dataclass(frozen=True)
class Unit:
    """The smallest piece of work: one choice on one chunk of the images."""

    chunk: int
    layer: str
    variant: Variant

    @property
    def name(self) -> str:
        """Its name in the journal."""
        return choice_name(self.chunk, self.layer, self.variant)


def choice_name(chunk: int, layer: str, variant: Variant) -> str:
    """A choice on a chunk of the images, in a journal."""
    return json.dumps([chunk, layer, variant.encoding, variant.activation, variant.parameters])


@dataclass
class LossWalk:
    """Observes every choice of a job, unit by unit; what the journal holds already is not done again. `observe` makes
    the observation from the full-precision outputs of all images."""

    job: Job
    observe: Callable[[Outputs], Observation]
    journal: Journal | None = None
    progress: Progress | None = None
    found: dict[str, Vector] = field(default_factory=dict)
    encoded: dict[Choice, EncodedLayer] = field(default_factory=dict)
    """The recovered layers. All chunks use those of the first one."""

    def __post_init__(self) -> None:
        job = self.job
        self.simulator = Simulator(job.network, job.weights)
        self.chunks = slices(0, count_images(job.images), chunk_size(self.simulator, job))
        # Fronts only move forwards, and a variant can reach back to operations before its layer.
        places = [Place(job.network, node, job.choices) for node in job.network.layers]
        self.places = sorted((place for place in places if place.variants), key=lambda place: place.start)
        self.units = [
            Unit(chunk, place.node.name, variant)
            for chunk in range(len(self.chunks))
            for place in self.places
            for variant in place.variants
        ]
        if self.journal:
            self.found |= self.journal.records

    def run(self) -> dict[Choice, Vector]:
        """What was observed of every choice, [N, numbers per image]."""
        if self._missing():
            self._report("activation ranges")
            observe = self.observe(self.full_outputs)
            for chunk in range(len(self.chunks)):
                self._walk(chunk, observe)
            self._report("")
        parts: dict[Choice, list[Vector]] = {}
        for unit in self.units:
            part = self.chunks[unit.chunk]
            rows = self.found[unit.name].reshape(part.stop - part.start, -1)
            parts.setdefault((unit.layer, unit.variant), []).append(rows)
        return {choice: np.concatenate(rows) for choice, rows in parts.items()}

    @cached_property
    def ranges(self) -> Ranges:
        """The activation ranges that all choices share."""
        formats = code_formats(unit.variant for unit in self.units)
        return calibrate(self.simulator, self.job.images, formats, batch=self.job.batch)

    @cached_property
    def full_outputs(self) -> dict[str, Vector]:
        """The outputs of the full-precision network on all images."""
        parts = []
        for part in slices(0, count_images(self.job.images), self.job.batch):
            outputs = self.simulator.outputs(take(self.job.images, part))
            parts.append({name: value.numpy() for name, value in outputs.items()})
        return {name: np.concatenate([part[name] for part in parts]) for name in self.job.network.outputs}

    def _missing(self) -> list[Unit]:
        return [unit for unit in self.units if unit.name not in self.found]

    def _walk(self, chunk: int, observe: Observation) -> None:
        """All choices on one chunk of the images."""
        missing = self._missing()
        front: Front | None = None
        for place in self.places:
            later = {unit.variant for unit in missing if unit.layer == place.node.name}
            now = {unit.variant for unit in missing if unit.layer == place.node.name and unit.chunk == chunk}
            if not now and (chunk or not later):
                continue
            front = front or Front.of_images(self.simulator, take(self.job.images, self.chunks[chunk]), self.job.batch)
            front.advance(place.start)
            for variant in (variant for variant in place.variants if variant in later):
                unit = Unit(chunk, place.node.name, variant)
                if (unit.layer, variant) not in self.encoded:
                    self.encoded[unit.layer, variant] = self.recovered(front, place, variant)
                if variant in now:
                    self._report(f"{unit.layer} as {variant}")
                    self._keep(unit, self._observed(front, place.start, unit, observe))

    def recovered(self, front: Front, place: Place, variant: Variant) -> EncodedLayer:
        """The layer after local recovery, on inputs that differ from full precision by their format alone."""
        position = self.job.network.nodes.index(place.node)
        formats = place.formats(variant)
        full, quantised = front.fork(), front.fork()
        full.advance(position)
        quantised.advance(position, None, self.ranges, formats)
        layer = quantise(self.job.network, place.node, self.job.weights, variant)
        subject = Subject(place.node, full, quantised, self.ranges, formats)
        for recover in RECOVERIES:
            layer = recover(subject, layer)
        return layer

    def _observed(self, front: Front, start: int, unit: Unit, observe: Observation) -> Vector:
        layers = {unit.layer: self.encoded[unit.layer, unit.variant]}
        chunk = self.chunks[unit.chunk]
        found = []
        for part, values in zip(slices(chunk.start, chunk.stop, self.job.batch), front.batches, strict=True):
            outputs = self.simulator.resume(values, start, layers, self.ranges)
            found.append(observe({name: value.numpy() for name, value in outputs.items()}, part))
        return np.concatenate(found)

    def _keep(self, unit: Unit, values: Vector) -> None:
        self.found[unit.name] = values.reshape(-1)
        if self.journal:
            self.journal.add(unit.name, values.reshape(-1))

    def _report(self, text: str) -> None:
        if self.progress:
            self.progress(len(self.units) - len(self._missing()), len(self.units), text)


class Place:
    """A layer with the variants that are wanted for it, and the number of the first node that they change."""

    def __init__(self, network: Network, node: Node, choices: frozenset[Choice]) -> None:
        self.network, self.node = network, node
        self.variants = sorted(variant for name, variant in choices if name == node.name)
        starts = [network.nodes.index(node)]
        for variant in self.variants:
            if variant.activation != F32:
                # Operations without weights before the layer compute in u8 too, if nobody else reads them in f32.
                read = self.formats(variant).read
                starts += [number for number, other in enumerate(network) if read.get(other.name) == U8]
        self.start = min(starts)

    def formats(self, variant: Variant) -> Formats:
        """The formats where this layer alone is changed."""
        return derive_formats(self.network, {n.name: FLOAT32 for n in self.network.layers} | {self.node.name: variant})


def chunk_size(simulator: Simulator, job: Job) -> int:
    """Images whose values fit into the memory, in whole batches and about equal chunks."""
    fitting = max(1, job.memory // peak_bytes(simulator) // job.batch)
    batches = -(-count_images(job.images) // job.batch)
    chunks = -(-batches // fitting)
    return -(-batches // chunks) * job.batch
