"""Measures the loss increase of every (layer, variant) alone, after local recovery.

The full-precision values are kept at one point of the network for all images (a `Front`) and moved through it layer by
layer; for each variant of a layer only the rest of the network is executed. So the cost is about half a forward pass
per choice, and one pass for all the prefixes together.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from importlib.resources import files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bitplan.encodings import EncodedLayer
from bitplan.errors import UsageError
from bitplan.formats import Formats, Range, derive_formats
from bitplan.network import Network, Node, Weights, weights_hash
from bitplan.policies.realise.calibrate import calibrate
from bitplan.policies.realise.front import Front, Images, count_images, default_batch, peak_bytes, slices, take
from bitplan.policies.realise.pipeline import RECOVERIES, quantise
from bitplan.policies.realise.subject import Subject
from bitplan.profiles.journal import Journal
from bitplan.profiles.loss import LossProfile
from bitplan.profiles.metrics import Increase, Labels, effective_metric, increase
from bitplan.simulate import Simulator
from bitplan.variant import F32, FLOAT32, U8, Variant

Menu = Mapping[str, Sequence[Variant]]
Progress = Callable[[int, int, str], None]
Vector = NDArray[np.float32]

MEMORY = 3 << 30
"""Bytes that the kept values may take; more images are measured in several walks through the network."""

CODE = {
    "bitplan": ("formats.py", "operations.py", "simulate.py"),
    "bitplan.encodings": (),
    "bitplan.policies.realise": (),
}
"""Sources (of a package; none named: all) that decide what a variant costs: their digest is the encodings' version, so
that a profile measured with others is never reused."""


def profile_hashes(network: Network, weights: Weights, images: Images, labels: Labels | None = None) -> dict[str, str]:
    """What a loss profile depends on, as SHA-256 in hexadecimal; `labels` only where the metric uses them."""
    data = hashlib.sha256()
    for name, array in sorted(images.items()) if isinstance(images, Mapping) else [("", images)]:
        data.update(f"{name} {array.dtype} {array.shape}".encode())
        data.update(np.ascontiguousarray(array).data)
    if labels is not None:
        data.update(np.ascontiguousarray(labels, np.int64).data)
    code = hashlib.sha256()
    for package, names in CODE.items():
        for file in sorted(files(package).iterdir(), key=lambda file: file.name):
            if file.name in names or (not names and file.name.endswith(".py")):
                code.update(file.name.encode() + file.read_bytes())
    return {
        "network": network.content_hash,
        "weights": weights_hash(weights),
        "data": data.hexdigest(),
        "encodings": code.hexdigest(),
    }


def measure(
    network: Network,
    weights: Weights,
    images: Images,
    menu: Menu,
    *,
    labels: Labels | None = None,
    metric: str = "kl",
    batch: int | None = None,
    memory: int = MEMORY,
    progress: Progress | None = None,
    checkpoint: Path | None = None,
    profile: LossProfile | None = None,
) -> LossProfile:
    """The loss profile of `menu` (variants by layer) on raw images [N, C, H, W].

    Every layer is changed alone; its input is read as the variant reads it, all else stays float32. float32 costs 0 by
    definition. `metric`: see metrics.py. Entries of `profile` are taken over where its metric and hashes are the same.
    `checkpoint` names a journal: a measurement that was interrupted goes on from it, with the same result (for the same
    batch, memory and number of threads); it is removed by nobody, and started anew for other hashes.
    Raises UsageError for an unknown layer, DataError for images or labels that do not fit.
    """
    metric = effective_metric(network, metric)
    hashes = profile_hashes(network, weights, images, labels if metric == "task" else None)
    _check_menu(network, menu)
    known = dict(profile.increases) if profile is not None and profile.same_origin(metric, hashes) else {}
    choices = [(layer, variant) for layer, variants in menu.items() for variant in dict.fromkeys(variants)]
    wanted = {choice for choice in choices if choice not in known and choice[1] != FLOAT32}
    batch = batch or default_batch(network)
    if wanted:
        key = json.dumps([metric, hashes, batch, memory])
        with Journal(checkpoint, key) if checkpoint else nullcontext() as journal:
            measurement = _Measurement(
                network, weights, images, wanted, metric, labels, batch, memory, journal, progress
            )
            known |= measurement.run()
    zero = np.zeros(count_images(images), np.float32)
    known |= {choice: zero for choice in choices if choice[1] == FLOAT32}
    return LossProfile(metric, hashes, {**{c: known[c] for c in choices}, **known})


def _check_menu(network: Network, menu: Menu) -> None:
    names = [node.name for node in network.layers]
    for name in menu:
        if name not in names:
            raise UsageError(f"the menu names a layer {name!r} that does not exist; the layers are {', '.join(names)}")


class _Measurement:
    """One run of `measure`: the state that its loops share."""

    def __init__(
        self,
        network: Network,
        weights: Weights,
        images: Images,
        wanted: set[tuple[str, Variant]],
        metric: str,
        labels: Labels | None,
        batch: int,
        memory: int,
        journal: Journal | None,
        progress: Progress | None,
    ) -> None:
        self.network, self.weights, self.images, self.batch = network, weights, images, batch
        self.journal, self.progress = journal, progress
        self.simulator = Simulator(network, weights)
        self.chunks = slices(0, count_images(images), _chunk_size(self.simulator, count_images(images), batch, memory))
        self.stops = [_Stop(network, node, wanted) for node in network.layers]
        # Fronts only move forwards, and a variant can reach back to operations before its layer.
        self.stops = sorted((stop for stop in self.stops if stop.variants), key=lambda stop: stop.start)
        self.encoded: dict[tuple[str, Variant], EncodedLayer] = {}
        self.found: dict[str, Vector] = dict(journal.records) if journal else {}
        self.total = len(wanted) * len(self.chunks)
        self.ranges: dict[str, Range] = {}
        self.increase: Increase | None = None
        self.metric, self.labels = metric, labels

    def run(self) -> dict[tuple[str, Variant], Vector]:
        if any(
            self._unit(number, s, v) not in self.found
            for s in self.stops
            for v in s.variants
            for number in range(len(self.chunks))
        ):
            self._report("calibration")
            self.ranges = calibrate(self.simulator, self.images, batch=self.batch)
            self.increase = increase(self.network, self.metric, self._full_outputs(), self.labels)
            for number, chunk in enumerate(self.chunks):
                self._walk(number, chunk)
        return {
            (stop.node.name, variant): np.concatenate(
                [self.found[self._unit(number, stop, variant)] for number in range(len(self.chunks))]
            )
            for stop in self.stops
            for variant in stop.variants
        }

    def _walk(self, number: int, chunk: slice) -> None:
        """All choices on one chunk of the images. Layers are recovered on the first chunk, for all of them."""
        front: Front | None = None
        for stop in self.stops:
            missing = [v for v in stop.variants if self._unit(number, stop, v) not in self.found]
            later = [
                v
                for v in stop.variants
                if any(self._unit(n, stop, v) not in self.found for n in range(len(self.chunks)))
            ]
            to_recover = [v for v in later if (stop.node.name, v) not in self.encoded]
            if not missing and not to_recover:
                continue
            front = front or Front.of_images(self.simulator, take(self.images, chunk), self.batch)
            front.advance(stop.start)
            for variant in to_recover:
                self.encoded[stop.node.name, variant] = self._recovered(front, stop, variant)
            for variant in missing:
                self._report(f"{stop.node.name} as {variant}")
                values = self._increases(front, stop, variant, chunk)
                name = self._unit(number, stop, variant)
                self.found[name] = values
                if self.journal:
                    self.journal.add(name, values)
        self._report("")

    def _recovered(self, front: Front, stop: _Stop, variant: Variant) -> EncodedLayer:
        position = self.network.nodes.index(stop.node)
        formats = stop.formats(self.network, variant)
        full, quantised = front.fork(), front.fork()
        full.advance(position)
        quantised.advance(position, None, self.ranges, formats)
        layer = quantise(self.network, stop.node, self.weights, variant)
        subject = Subject(stop.node, full, quantised, self.ranges, formats)
        for recover in RECOVERIES:
            layer = recover(subject, layer)
        return layer

    def _increases(self, front: Front, stop: _Stop, variant: Variant, chunk: slice) -> Vector:
        assert self.increase is not None
        layers = {stop.node.name: self.encoded[stop.node.name, variant]}
        parts, found = slices(chunk.start, chunk.stop, self.batch), []
        for part, values in zip(parts, front.batches, strict=True):
            outputs = self.simulator.resume(values, stop.start, layers, self.ranges)
            found.append(self.increase({name: value.numpy() for name, value in outputs.items()}, part))
        return np.concatenate(found)

    def _full_outputs(self) -> dict[str, NDArray[np.float32]]:
        parts = []
        for part in slices(0, count_images(self.images), self.batch):
            images = take(self.images, part)
            outputs = self.simulator.outputs(dict(images) if isinstance(images, Mapping) else images)
            parts.append({name: value.numpy() for name, value in outputs.items()})
        return {name: np.concatenate([part[name] for part in parts]) for name in self.network.outputs}

    def _unit(self, number: int, stop: _Stop, variant: Variant) -> str:
        return json.dumps([number, stop.node.name, variant.encoding, variant.activation, variant.parameters])

    def _report(self, text: str) -> None:
        if self.progress:
            done = sum(
                self._unit(n, s, v) in self.found
                for s in self.stops
                for v in s.variants
                for n in range(len(self.chunks))
            )
            self.progress(done, self.total, text)


class _Stop:
    """A layer whose variants are wanted, and the first node that they change."""

    def __init__(self, network: Network, node: Node, wanted: set[tuple[str, Variant]]) -> None:
        self.node = node
        self.variants = sorted(variant for name, variant in wanted if name == node.name)
        position = network.nodes.index(node)
        starts = [position]
        for activation in {variant.activation for variant in self.variants} - {F32}:
            # Operations without weights in front of the layer compute in u8 if nobody else reads them in f32.
            read = self.formats(network, Variant("int8", activation)).read
            starts += [i for i, other in enumerate(network) if read.get(other.name) == U8]
        self.start = min(starts)

    def formats(self, network: Network, variant: Variant) -> Formats:
        """The formats where this layer alone is changed."""
        return derive_formats(network, {n.name: variant if n is self.node else FLOAT32 for n in network.layers})


def _chunk_size(simulator: Simulator, count: int, batch: int, memory: int) -> int:
    """Images whose values fit into the memory, in whole batches and about equal chunks."""
    fitting = max(1, memory // peak_bytes(simulator) // batch)
    batches = -(-count // batch)
    chunks = -(-batches // fitting)
    return -(-batches // chunks) * batch
