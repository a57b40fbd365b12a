"""Losses of single choices and of pairs by forward evaluations (CLADO, arXiv 2307.05657, section 3):

    pair(i at b, j at c) = L(both) - L(i at b) - L(j at c)

with every layer recovered as it is alone. The values of the network with i in place are moved through it once and only
what comes behind j is executed for each pair: about a third of evaluating every pair in full.

Pairs that cannot matter are not evaluated. To second order a pair is at most 2 sqrt(L_i L_j), by Cauchy and Schwarz, and
close to what `gram` says of it. Where the former is below NEGLIGIBLE of the typical difference that a policy trades (the
median over layers of the loss between neighbouring variants), the pair keeps the latter.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import fsum

import numpy as np
from numpy.typing import NDArray

from bitplan.encodings import EncodedLayer
from bitplan.formats import Formats, derive_formats
from bitplan.policies.realise.front import Front, slices, take
from bitplan.profiles.estimators.cost import shares_left, walk_cost
from bitplan.profiles.estimators.gram import correlated, observation
from bitplan.profiles.estimators.method import Cost, Matrix, Measured
from bitplan.profiles.estimators.tempered import TEMPERATURE
from bitplan.profiles.journal import Journal
from bitplan.profiles.loss_walk import Choice, Job, LossWalk, Place, Progress, choice_name
from bitplan.profiles.metrics import METRICS, Increase, increase
from bitplan.variant import FLOAT32, Variant

NEGLIGIBLE = 0.5

Losses = NDArray[np.float64]


@dataclass(frozen=True)
class Clado:
    """The raw pairs; a program needs the nearest positive semidefinite matrix (profiles/quadratic.py). Pairs and losses
    need labels only where the metric is task. `negligible` 0: every pair is evaluated."""

    negligible: float = NEGLIGIBLE
    metrics: tuple[str, ...] = METRICS
    incremental: bool = False

    def cost(self, job: Job) -> Cost:
        """Of all pairs: which can matter is known once the single losses are."""
        return walk_cost(job) + pairs_cost(job, set(_all_pairs(job)))

    def measure(self, job: Job, journal: Journal | None = None, progress: Progress | None = None) -> Measured:
        walk = LossWalk(job, lambda full: observation(job, full, TEMPERATURE, 1.0), journal, progress)
        rows = walk.run()
        increases = {choice: found[:, 0] for choice, found in rows.items()}
        losses = np.array([v.mean(dtype=np.float64) for v in increases.values()])
        pairs, errors = correlated(losses, np.stack([found[:, 1:] for found in rows.values()]))
        numbers = {choice: number for number, choice in enumerate(increases)}
        for a, own in enumerate(numbers):
            for b, other in enumerate(numbers):
                if own[0] == other[0]:
                    pairs[a, b] = errors[a, b] = 0
        wanted = matter(list(numbers), losses, self.negligible)
        measured = PairWalk(walk, increases, wanted, journal, progress).run()
        for (first, second), (mean, error) in measured.items():
            at = numbers[first], numbers[second]
            pairs[at] = pairs[at[::-1]] = mean
            errors[at] = errors[at[::-1]] = error
        return Measured(increases, pairs, errors, cost=walk_cost(job) + pairs_cost(job, wanted))


def matter(choices: list[Choice], losses: Losses, negligible: float) -> set[tuple[Choice, Choice]]:
    """The pairs of choices [C] with losses [C] that can matter, each in both orders."""
    roots = np.sqrt(np.maximum(losses, 0))
    steps = []
    for layer in dict.fromkeys(layer for layer, _ in choices):
        own = np.sort([loss for (name, _), loss in zip(choices, losses, strict=True) if name == layer])
        steps += list(np.diff(own))
    least = negligible * float(np.median(steps)) if steps else 0.0
    return {
        (own, other)
        for a, own in enumerate(choices)
        for b, other in enumerate(choices)
        if own[0] != other[0] and 2 * roots[a] * roots[b] >= least
    }


def pairs_cost(job: Job, wanted: set[tuple[Choice, Choice]]) -> Cost:
    """For every choice the rest of the network once, and for every pair what comes behind its second layer."""
    left = shares_left(job.network)
    order = {node.name: number for number, node in enumerate(job.network.layers)}
    behind = {node.name: left[Place(job.network, node, job.choices).start] for node in job.network.layers}
    pairs = [(a, b) for a, b in wanted if order[a[0]] < order[b[0]]]
    firsts = {a for a, _ in pairs}
    passes = fsum(behind[b[0]] for _, b in pairs) + fsum(behind[a[0]] for a in firsts)
    return Cost(len(pairs) + len(firsts), passes)


def _all_pairs(job: Job) -> list[tuple[Choice, Choice]]:
    return [(a, b) for a in job.choices for b in job.choices if a[0] != b[0]]


@dataclass
class PairWalk:
    """Evaluates pairs behind a walk that has observed single choices; `increases` are theirs."""

    walk: LossWalk
    increases: dict[Choice, NDArray[np.float32]]
    wanted: set[tuple[Choice, Choice]]
    journal: Journal | None = None
    progress: Progress | None = None
    found: dict[str, NDArray[np.float32]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.network = self.walk.job.network
        order = {node.name: number for number, node in enumerate(self.network.layers)}
        self.pairs = sorted(
            ((a, b) for a, b in self.wanted if order[a[0]] < order[b[0]]),
            key=lambda pair: (order[pair[0][0]], pair[0][1], order[pair[1][0]], pair[1][1]),
        )
        if self.journal:
            self.found |= self.journal.records
        self.names = [_name(chunk, *pair) for chunk in range(len(self.walk.chunks)) for pair in self.pairs]
        self.done = sum(name in self.found for name in self.names)

    def run(self) -> dict[tuple[Choice, Choice], tuple[float, float]]:
        """Mean and standard error of every wanted pair, first layer first."""
        chunks = range(len(self.walk.chunks))
        if self.done < len(self.names):
            loss = increase(self.network, self.walk.job.metric, self.walk.full_outputs, self.walk.job.labels)
            for chunk in chunks:
                self._measure(chunk, loss)
            self._report("")
        result = {}
        for pair in self.pairs:
            sums = np.sum([self.found[_name(chunk, *pair)].astype(np.float64) for chunk in chunks], 0)
            count, total, squares = sums
            mean = total / count
            variance = max(squares / count - mean**2, 0.0)
            result[pair] = (float(mean), float(np.sqrt(variance / max(count - 1, 1))))
        return result

    def _measure(self, chunk: int, loss: Increase) -> None:
        """All wanted pairs on one chunk of the images, by their first choice."""
        missing: dict[Choice, list[Choice]] = {}
        for first, second in self.pairs:
            if _name(chunk, first, second) not in self.found:
                missing.setdefault(first, []).append(second)
        if not missing:
            return
        self._recover({choice for first, seconds in missing.items() for choice in (first, *seconds)})
        images = take(self.walk.job.images, self.walk.chunks[chunk])
        base = Front.of_images(self.walk.simulator, images, self.walk.job.batch)
        for place in self.walk.places:
            here = [variant for variant in place.variants if (place.node.name, variant) in missing]
            if here:
                base.advance(place.start)
            for variant in here:
                self._behind(chunk, base, (place.node.name, variant), missing[place.node.name, variant], loss)

    def _behind(self, chunk: int, base: Front, first: Choice, seconds: list[Choice], loss: Increase) -> None:
        """All pairs of one first choice: the values with it in place move on, to where each second choice begins."""
        alone = self._formats(first)
        starts = {second: self._start(alone, first, second) for second in seconds}
        front = base.fork()
        layers = {first[0]: self.walk.encoded[first]}
        for second in sorted(seconds, key=lambda choice: starts[choice]):
            self._report(f"{first[0]} as {first[1]} with {second[0]} as {second[1]}")
            both = {**layers, second[0]: self.walk.encoded[second]}
            # The two together can move an operation before both of them into codes: nothing is cached there.
            early = starts[second] < base.position
            if early:
                images = take(self.walk.job.images, self.walk.chunks[chunk])
                values = Front.of_images(self.walk.simulator, images, self.walk.job.batch)
            else:
                front.advance(starts[second], layers, self.walk.ranges, alone)
                values = front
            self._keep(chunk, first, second, self._increases(chunk, values, both, loss))

    def _increases(
        self, chunk: int, front: Front, layers: dict[str, EncodedLayer], loss: Increase
    ) -> NDArray[np.float32]:
        part = self.walk.chunks[chunk]
        found = []
        for images, values in zip(slices(part.start, part.stop, self.walk.job.batch), front.batches, strict=True):
            outputs = self.walk.simulator.resume(values, front.position, layers, self.walk.ranges)
            found.append(loss({name: value.numpy() for name, value in outputs.items()}, images))
        return np.concatenate(found)

    def _keep(self, chunk: int, first: Choice, second: Choice, both: NDArray[np.float32]) -> None:
        part = self.walk.chunks[chunk]
        beyond = both.astype(np.float64) - self.increases[first][part] - self.increases[second][part]
        record = np.array([len(beyond), beyond.sum(), np.square(beyond).sum()], np.float32)
        self.found[_name(chunk, first, second)] = record
        self.done += 1
        if self.journal:
            self.journal.add(_name(chunk, first, second), record)

    def _recover(self, choices: set[Choice]) -> None:
        """The layers that the walk found in its journal and has not recovered now, on the first chunk's images."""
        missing = choices - self.walk.encoded.keys()
        front = Front.of_images(
            self.walk.simulator, take(self.walk.job.images, self.walk.chunks[0]), self.walk.job.batch
        )
        for place in self.walk.places:
            for variant in place.variants:
                if (place.node.name, variant) in missing:
                    front.advance(place.start)
                    self.walk.encoded[place.node.name, variant] = self.walk.recovered(front, place, variant)

    def _formats(self, *choices: Choice) -> Formats:
        changed: dict[str, Variant] = dict(choices)
        return derive_formats(self.network, {n.name: changed.get(n.name, FLOAT32) for n in self.network.layers})

    def _start(self, alone: Formats, first: Choice, second: Choice) -> int:
        """The number of the first node that the second choice changes once the first is in place."""
        both = self._formats(first, second)
        for number, node in enumerate(self.network):
            if node.name == second[0] or alone.read.get(node.name) != both.read.get(node.name):
                return number
        raise AssertionError(f"{second[0]} is a node of the network")

    def _report(self, text: str) -> None:
        if self.progress:
            self.progress(self.done, len(self.names), text)


def _name(chunk: int, first: Choice, second: Choice) -> str:
    return f"{choice_name(chunk, *first)} {choice_name(chunk, *second)}"


METHOD = Clado()

__all__ = ["METHOD", "Clado", "Matrix", "PairWalk", "matter", "pairs_cost"]
