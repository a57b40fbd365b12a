"""The loop behind most estimators: all images move through the full-precision network together, layer by layer; at each
layer its variants are recovered, put in place one at a time, and the rest of the network is executed. Any worker can
begin the walk anywhere, so that the choices can be shared out among several."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from bitplan.encodings import EncodedLayer
from bitplan.formats import Formats, Ranges, derive_formats
from bitplan.network import Network, Node, Weights
from bitplan.policies.realise.calibrate import calibrate
from bitplan.policies.realise.front import Front, Images, count_images, peak_bytes, slices, take
from bitplan.policies.realise.pipeline import code_formats, quantise
from bitplan.policies.realise.steps import recoveries
from bitplan.policies.realise.subject import Subject
from bitplan.policies.realise.warm import WarmStart
from bitplan.profiles.journal import Journal
from bitplan.profiles.metrics import Labels, Outputs
from bitplan.profiles.workers import HERE, Workers, carry_out
from bitplan.recovery_names import CORRECT, DEFAULT_RANGES
from bitplan.simulate import Simulator
from bitplan.variant import FLOAT32, Variant

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
    recovery: tuple[str, ...] = (CORRECT,)
    """The steps (recovery_names.LAYER_STEPS) that every choice gets."""
    range_method: str = DEFAULT_RANGES
    around: WarmStart | None = None
    """A trained network that choices are put into, one at a time, in the place of full precision; outputs are compared
    with those of full precision all the same. It must have the ranges of all formats that choices read."""


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

    @property
    def title(self) -> str:
        return f"{self.layer} as {self.variant}"


def choice_name(chunk: int, layer: str, variant: Variant) -> str:
    """A choice on a chunk of the images, in a journal."""
    return json.dumps([chunk, layer, variant.encoding, variant.activation, variant.parameters])


@dataclass(frozen=True)
class Basis:
    """What all choices share: the activation ranges, and the full-precision outputs of all images."""

    ranges: Ranges
    full_outputs: dict[str, Vector]


class Walk:
    """The network, and one front of full-precision values in it that moves forwards. `wanted`: the choices that units
    will ask for, all of them if not given. Pickled without what it has computed, but for the basis."""

    def __init__(self, job: Job, wanted: frozenset[Choice] | None = None, basis: Basis | None = None) -> None:
        self.job = job
        self.wanted = job.choices if wanted is None else wanted
        if basis is not None:
            self.basis = basis
        self.simulator = Simulator(job.network, job.weights)
        self.chunks = slices(0, count_images(job.images), chunk_size(self.simulator, job))
        # Fronts only move forwards, and a variant can reach back to operations before its layer.
        around = job.around
        self._around = (around.layers, around.ranges, derive_formats(job.network, around.variants)) if around else ()
        """What every layer but the changed one is, as arguments of Front.advance; nothing: full precision."""
        before = around.variants if around else None
        places = [Place(job.network, node, job.choices, before) for node in job.network.layers]
        self.places = sorted((place for place in places if place.variants), key=lambda place: place.start)
        self.place_of = {place.node.name: place for place in self.places}
        self.encoded: dict[Choice, EncodedLayer] = {}
        """The recovered layers. All chunks use those of the first one."""
        self._front: tuple[int, Front] | None = None
        self._subject: tuple[Node, str, Subject] | None = None

    def __reduce__(self) -> tuple[type[Walk], tuple[Job, frozenset[Choice], Basis]]:
        return Walk, (self.job, self.wanted, self.basis)

    @cached_property
    def basis(self) -> Basis:
        """Computed where it was not given."""
        job = self.job
        if job.around:
            ranges = job.around.ranges
        else:
            formats = code_formats(variant for place in self.places for variant in place.variants)
            ranges = calibrate(self.simulator, job.images, formats, batch=job.batch, method=job.range_method)
        parts = []
        for part in slices(0, count_images(job.images), job.batch):
            outputs = self.simulator.outputs(take(job.images, part))
            parts.append({name: value.numpy() for name, value in outputs.items()})
        return Basis(ranges, {name: np.concatenate([part[name] for part in parts]) for name in job.network.outputs})

    def front(self, chunk: int, position: int) -> Front:
        """The values of a chunk at a position with no choice in place; to be forked before it is moved."""
        kept = self._front
        if kept is None or kept[0] != chunk or kept[1].position > position:
            self._front = kept = None  # the memory holds the values of one chunk
            images = take(self.job.images, self.chunks[chunk])
            self._front = kept = chunk, Front.of_images(self.simulator, images, self.job.batch)
        kept[1].advance(position, *self._around)
        return kept[1]

    def with_choice(self, choice: Choice) -> dict[str, EncodedLayer]:
        """The layers of the network with this choice in place, which has been recovered."""
        return {**(self.job.around.layers if self.job.around else {}), choice[0]: self.encoded[choice]}

    def recover(self, choices: Iterable[Choice]) -> None:
        """Local recovery of the choices that have not had it, on inputs that differ from full precision by their format
        alone, on the images of the first chunk."""
        missing = set(choices) - self.encoded.keys()
        for place in self.places:
            for variant in place.variants:
                choice = place.node.name, variant
                if choice in missing:
                    self.encoded[choice] = self._recovered(self.front(0, place.start), place, variant)

    def _recovered(self, front: Front, place: Place, variant: Variant) -> EncodedLayer:
        subject = self._subject_of(front, place, variant)
        around = self.job.around
        layer = quantise(self.job.network, place.node, around.floats if around else self.job.weights, variant)
        for recover in recoveries(self.job.recovery):
            layer = recover(subject, layer)
        return layer

    def _subject_of(self, front: Front, place: Place, variant: Variant) -> Subject:
        """Variants that read a layer's input alike share it, with what recovery has found out about that input."""
        kept = self._subject
        if kept is None or kept[:2] != (place.node, variant.activation):
            position, around = self.job.network.nodes.index(place.node), self.job.around
            formats = place.formats(variant)
            full, quantised = front.fork(), front.fork()
            full.advance(position, *self._around)
            quantised.advance(position, around.layers if around else None, self.basis.ranges, formats)
            reference = around.reference(place.node.name, self.job.network) if around else None
            subject = Subject(place.node, full, quantised, self.basis.ranges, formats, reference)
            self._subject = kept = place.node, variant.activation, subject
        return kept[2]


class Singles:
    """Observes choices alone. `observe` makes the observation from the full-precision outputs of all images; it can be
    pickled."""

    def __init__(self, walk: Walk, observe: Callable[[Outputs], Observation]) -> None:
        self.walk, self.observe = walk, observe

    def __reduce__(self) -> tuple[type[Singles], tuple[Walk, Callable[[Outputs], Observation]]]:
        return Singles, (self.walk, self.observe)

    @cached_property
    def observation(self) -> Observation:
        return self.observe(self.walk.basis.full_outputs)

    def evaluate(self, unit: Unit) -> Vector:
        """What is observed of a unit, [n, numbers per image] in one row."""
        walk, choice = self.walk, (unit.layer, unit.variant)
        # In the first chunk one by one as the walk gets there; in later ones all at once, as it has to go back for them.
        walk.recover([choice] if unit.chunk == 0 or choice in walk.encoded else walk.wanted)
        start = walk.place_of[unit.layer].start
        layers, chunk = walk.with_choice(choice), walk.chunks[unit.chunk]
        found = []
        batches = walk.front(unit.chunk, start).batches
        for part, values in zip(slices(chunk.start, chunk.stop, walk.job.batch), batches, strict=True):
            outputs = walk.simulator.resume(values, start, layers, walk.basis.ranges)
            found.append(self.observation({name: value.numpy() for name, value in outputs.items()}, part))
        return np.concatenate(found).reshape(-1)


class LossWalk:
    """Observes every choice of a job, unit by unit; what the journal holds already is not done again."""

    def __init__(
        self,
        job: Job,
        observe: Callable[[Outputs], Observation],
        journal: Journal | None = None,
        progress: Progress | None = None,
        workers: Workers = HERE,
    ) -> None:
        self.walk = Walk(job)
        self.observe, self.journal, self.progress, self.workers = observe, journal, progress, workers
        self.units = [
            Unit(chunk, place.node.name, variant)
            for chunk in range(len(self.walk.chunks))
            for place in self.walk.places
            for variant in place.variants
        ]
        self.found = dict(journal.records) if journal else {}
        self.done = sum(unit.name in self.found for unit in self.units)

    def run(self) -> dict[Choice, Vector]:
        """What was observed of every choice, [N, numbers per image]."""
        missing = [unit for unit in self.units if unit.name not in self.found]
        if missing:
            self._report("activation ranges")
            self.walk.wanted = frozenset((unit.layer, unit.variant) for unit in missing)
            singles = Singles(self.walk, self.observe)
            carry_out(singles, [[unit] for unit in missing], self._keep, self._report, self.workers)
            self._report("")
        parts: dict[Choice, list[Vector]] = {}
        for unit in self.units:
            part = self.walk.chunks[unit.chunk]
            rows = self.found[unit.name].reshape(part.stop - part.start, -1)
            parts.setdefault((unit.layer, unit.variant), []).append(rows)
        return {choice: np.concatenate(rows) for choice, rows in parts.items()}

    def _keep(self, unit: Unit, values: Vector) -> None:
        self.found[unit.name] = values
        self.done += 1
        if self.journal:
            self.journal.add(unit.name, values)

    def _report(self, text: str) -> None:
        if self.progress:
            self.progress(self.done, len(self.units), text)


class Place:
    """A layer with the variants that are wanted for it, and the number of the first node that they change. `around`: the
    variants of all layers before the change; float32 if not given."""

    def __init__(
        self, network: Network, node: Node, choices: frozenset[Choice], around: Mapping[str, Variant] | None = None
    ) -> None:
        self.network, self.node = network, node
        self.around = around or {layer.name: FLOAT32 for layer in network.layers}
        self.variants = sorted(variant for name, variant in choices if name == node.name)
        starts = [network.nodes.index(node)]
        before = derive_formats(network, self.around).read
        for variant in self.variants:
            # Operations without weights before the layer read other formats too, if that depends on it.
            after = self.formats(variant).read
            starts += [
                number for number, other in enumerate(network) if before.get(other.name) != after.get(other.name)
            ]
        self.start = min(starts)

    def formats(self, variant: Variant) -> Formats:
        """The formats where this layer alone is changed."""
        return derive_formats(self.network, {**self.around, self.node.name: variant})


def chunk_size(simulator: Simulator, job: Job) -> int:
    """Images whose values fit into the memory, in whole batches and about equal chunks."""
    fitting = max(1, job.memory // peak_bytes(simulator) // job.batch)
    batches = -(-count_images(job.images) // job.batch)
    chunks = -(-batches // fitting)
    return -(-batches // chunks) * job.batch
