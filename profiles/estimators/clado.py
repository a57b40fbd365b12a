"""Losses of single choices and of pairs by forward evaluations (CLADO, arXiv 2307.05657, section 3):

    pair(i at b, j at c) = L(both) - L(i at b) - L(j at c)

with every layer recovered as it is alone. The values of the network with i in place are moved through it once and only
what comes behind j is executed for each pair: about a third of evaluating every pair in full.

Pairs that cannot matter are not evaluated. To second order a pair is at most 2 sqrt(L_i L_j), by Cauchy and Schwarz, and
close to what `gram` says of it. Where the former is below NEGLIGIBLE of the typical difference that a policy trades (the
median over layers of the loss between neighbouring variants), the pair keeps the latter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import groupby
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
from bitplan.profiles.loss_walk import Choice, Job, LossWalk, Place, Progress, Walk, choice_name
from bitplan.profiles.metrics import METRICS, Increase, increase
from bitplan.profiles.workers import HERE, Workers, carry_out, started
from bitplan.variant import FLOAT32

NEGLIGIBLE = 0.5

BLOCK = 16
"""Pairs that are given to a worker at once, and lost with it."""

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

    def measure(
        self, job: Job, journal: Journal | None = None, progress: Progress | None = None, workers: Workers = HERE
    ) -> Measured:
        with started(workers) as crew:  # once for single choices and pairs
            return self._measured(job, journal, progress, crew)

    def _measured(self, job: Job, journal: Journal | None, progress: Progress | None, workers: Workers) -> Measured:
        singles = LossWalk(job, partial(observation, job, TEMPERATURE, 1.0), journal, progress, workers)
        rows = singles.run()
        increases = {choice: found[:, 0] for choice, found in rows.items()}
        losses = np.array([v.mean(dtype=np.float64) for v in increases.values()])
        pairs, errors = correlated(losses, np.stack([found[:, 1:] for found in rows.values()]))
        numbers = {choice: number for number, choice in enumerate(increases)}
        for a, own in enumerate(numbers):
            for b, other in enumerate(numbers):
                if own[0] == other[0]:
                    pairs[a, b] = errors[a, b] = 0
        wanted = matter(list(numbers), losses, self.negligible)
        measured = PairWalk(singles.walk, increases, wanted, journal, progress, workers).run()
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


@dataclass(frozen=True)
class PairUnit:
    """Two choices together on one chunk of the images."""

    chunk: int
    first: Choice
    second: Choice

    @property
    def name(self) -> str:
        """Its name in the journal."""
        return f"{choice_name(self.chunk, *self.first)} {choice_name(self.chunk, *self.second)}"

    @property
    def title(self) -> str:
        return f"{self.first[0]} as {self.first[1]} with {self.second[0]} as {self.second[1]}"


class Pairs:
    """Evaluates pairs of choices. Behind the walk's front there is a second one, of values with a first choice in place;
    it moves on to where each second choice begins."""

    def __init__(self, walk: Walk) -> None:
        self.walk = walk
        self._behind: tuple[int, Choice, Front] | None = None

    def __reduce__(self) -> tuple[type[Pairs], tuple[Walk]]:
        return Pairs, (self.walk,)

    @cached_property
    def loss(self) -> Increase:
        job = self.walk.job
        return increase(job.network, job.metric, self.walk.basis.full_outputs, job.labels)

    def evaluate(self, unit: PairUnit) -> NDArray[np.float32]:
        """The loss increases [n] of the two together."""
        walk, (name, _) = self.walk, unit.first
        walk.recover(walk.wanted)
        alone = self._formats(unit.first)
        start = self._start(alone, unit.first, unit.second)
        begin = walk.place_of[name].start
        if start < begin:
            # The two together can move an operation before both of them into codes: nothing is cached there.
            images = take(walk.job.images, walk.chunks[unit.chunk])
            values = Front.of_images(walk.simulator, images, walk.job.batch)
        else:
            values = self._in_place(unit.chunk, unit.first, begin, start)
            values.advance(start, {name: walk.encoded[unit.first]}, walk.basis.ranges, alone)
        both = {choice[0]: walk.encoded[choice] for choice in (unit.first, unit.second)}
        return self._increases(walk.chunks[unit.chunk], values, both)

    def _in_place(self, chunk: int, first: Choice, begin: int, start: int) -> Front:
        """The front with the first choice in place, not beyond `start`."""
        kept = self._behind
        if kept is None or kept[:2] != (chunk, first) or kept[2].position > start:
            self._behind = kept = None
            self._behind = kept = chunk, first, self.walk.front(chunk, begin).fork()
        return kept[2]

    def _increases(self, chunk: slice, front: Front, layers: dict[str, EncodedLayer]) -> NDArray[np.float32]:
        walk = self.walk
        found = []
        for part, values in zip(slices(chunk.start, chunk.stop, walk.job.batch), front.batches, strict=True):
            outputs = walk.simulator.resume(values, front.position, layers, walk.basis.ranges)
            found.append(self.loss({name: value.numpy() for name, value in outputs.items()}, part))
        return np.concatenate(found)

    def _formats(self, *choices: Choice) -> Formats:
        changed, network = dict(choices), self.walk.job.network
        return derive_formats(network, {n.name: changed.get(n.name, FLOAT32) for n in network.layers})

    def _start(self, alone: Formats, first: Choice, second: Choice) -> int:
        """The number of the first node that the second choice changes once the first is in place."""
        both = self._formats(first, second)
        for number, node in enumerate(self.walk.job.network):
            if node.name == second[0] or alone.read.get(node.name) != both.read.get(node.name):
                return number
        raise AssertionError(f"{second[0]} is a node of the network")


class PairWalk:
    """Evaluates pairs behind a walk that has observed single choices; `increases` are theirs."""

    def __init__(
        self,
        walk: Walk,
        increases: dict[Choice, NDArray[np.float32]],
        wanted: set[tuple[Choice, Choice]],
        journal: Journal | None = None,
        progress: Progress | None = None,
        workers: Workers = HERE,
    ) -> None:
        self.walk, self.increases = walk, increases
        self.journal, self.progress, self.workers = journal, progress, workers
        # By the places of both, so that fronts move forwards.
        order = {place.node.name: number for number, place in enumerate(walk.places)}
        layers = {node.name: number for number, node in enumerate(walk.job.network.layers)}
        self.pairs = sorted(
            ((a, b) for a, b in wanted if layers[a[0]] < layers[b[0]]),
            key=lambda pair: (order[pair[0][0]], pair[0][1], order[pair[1][0]], pair[1][1]),
        )
        self.units = [PairUnit(chunk, *pair) for chunk in range(len(walk.chunks)) for pair in self.pairs]
        self.found = dict(journal.records) if journal else {}
        self.done = sum(unit.name in self.found for unit in self.units)

    def run(self) -> dict[tuple[Choice, Choice], tuple[float, float]]:
        """Mean and standard error of every wanted pair, first layer first."""
        missing = [unit for unit in self.units if unit.name not in self.found]
        if missing:
            self.walk.wanted = frozenset(choice for unit in missing for choice in (unit.first, unit.second))
            carry_out(Pairs(self.walk), _blocks(missing), self._keep, self._report, self.workers)
            self._report("")
        result = {}
        for pair in self.pairs:
            records = [self.found[PairUnit(chunk, *pair).name] for chunk in range(len(self.walk.chunks))]
            count, total, squares = np.sum([record.astype(np.float64) for record in records], 0)
            mean = total / count
            variance = max(squares / count - mean**2, 0.0)
            result[pair] = (float(mean), float(np.sqrt(variance / max(count - 1, 1))))
        return result

    def _keep(self, unit: PairUnit, both: NDArray[np.float32]) -> None:
        part = self.walk.chunks[unit.chunk]
        beyond = both.astype(np.float64) - self.increases[unit.first][part] - self.increases[unit.second][part]
        record = np.array([len(beyond), beyond.sum(), np.square(beyond).sum()], np.float32)
        self.found[unit.name] = record
        self.done += 1
        if self.journal:
            self.journal.add(unit.name, record)

    def _report(self, text: str) -> None:
        if self.progress:
            self.progress(self.done, len(self.units), text)


def _blocks(units: Sequence[PairUnit]) -> list[list[PairUnit]]:
    """At most BLOCK pairs of one first choice on one chunk: values are moved on for all of them at once."""
    found = []
    for _, same in groupby(units, key=lambda unit: (unit.chunk, unit.first)):
        own = list(same)
        found += [own[start : start + BLOCK] for start in range(0, len(own), BLOCK)]
    return found


METHOD = Clado()

__all__ = ["METHOD", "Clado", "Matrix", "PairWalk", "matter", "pairs_cost"]
