"""Swap search on the true loss: from the program's optimum, exchanges that keep the limits, tried in the order of what
they are predicted to gain and kept only where measuring confirms it.

The program minimises predicted losses; around its optimum the predictions differ by less than they are wrong, so that
some neighbour is better in truth. Tried on few images alone, such a search fits those images. So a swap is accepted only
if the loss falls on the images that recovery was fitted to and on images that were held back, and on all of them together
by more than its paired standard error.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from bitplan.errors import UsageError
from bitplan.network import Network
from bitplan.optimizer.build_problem import BYTES, LOSS, MEMORY, Menu, Program, build_problem
from bitplan.optimizer.check import feasible
from bitplan.optimizer.packing import PackedSolver
from bitplan.optimizer.predict import Predictor
from bitplan.policies.policy import Policy
from bitplan.profiles.journal import Journal
from bitplan.targets import Targets
from bitplan.variant import Variant

if TYPE_CHECKING:
    from collections.abc import Callable

    from bitplan.profiles.device import DeviceProfile
    from bitplan.profiles.loss import LossProfile

    Progress = Callable[[int, int, str], None]

Losses = NDArray[np.float32]
Variants = Mapping[str, Variant]


class Evaluate(Protocol):
    """Realises a policy and measures the loss increase of every image, float32 [N] and [M]: of those that recovery is
    fitted to, and of those held back. The same policy gives the same numbers."""

    def __call__(self, variants: Variants) -> tuple[Losses, Losses]: ...


@dataclass(frozen=True, slots=True)
class Measured:
    """Mean loss increase on both halves of the calibration images."""

    fitted: float
    held_back: float

    @classmethod
    def of(cls, halves: tuple[Losses, Losses]) -> Measured:
        return cls(*(float(half.mean(dtype=np.float64)) for half in halves))


@dataclass(frozen=True)
class Swap:
    """An accepted swap: what changed, layer by layer (from, to), and the losses behind it."""

    changes: Mapping[str, tuple[str, str]]
    after: Measured


@dataclass(frozen=True)
class Polished:
    """The policy after all accepted swaps; `evaluations`: policies measured, the first one included."""

    policy: Policy
    before: Measured
    after: Measured
    swaps: tuple[Swap, ...]
    evaluations: int


def polish(
    network: Network,
    policy: Policy,
    loss_profile: LossProfile,
    device_profile: DeviceProfile | None,
    targets: Targets,
    menu: Menu,
    evaluate: Evaluate,
    *,
    evaluations: int,
    threads: int = 1,
    batch: int = 1,
    journal: Path | None = None,
    key: str = "",
    progress: Progress | None = None,
) -> Polished:
    """Swaps that lower the measured loss within `targets`, with at most `evaluations` policies measured.

    `journal` names a file of the losses measured, from which an interrupted search goes on with the same result; `key`
    says what they depend on besides the policy, and another key starts it anew.
    Raises UsageError where the loss is not the objective, for fewer than two evaluations, and for a policy that breaks
    the limits."""
    if targets.objective != LOSS:
        raise UsageError(f"polishing lowers the loss, but the objective is {targets.objective}; leave --polish out")
    if evaluations < 2:
        raise UsageError(f"{evaluations} evaluations do not polish anything: the plan itself takes one; allow more")
    predictor = Predictor(network, loss_profile, device_profile, threads, batch)
    program = build_problem(
        network,
        menu,
        targets,
        loss_profile=loss_profile,
        device_profile=device_profile,
        threads=threads,
        batch=batch,
    )
    limits = _Limits(program, PackedSolver(program, predictor), targets)
    if not limits.kept(policy.variants):
        raise UsageError("the policy to be polished breaks the limits; plan it under these limits first")
    with Journal(journal, json.dumps([key, "polish"])) if journal else nullcontext() as records:
        search = _SwapSearch(policy, predictor, limits, evaluate, evaluations, records, progress)
        return search.run()


@dataclass(frozen=True)
class _Limits:
    program: Program
    packed: PackedSolver
    targets: Targets

    def kept(self, variants: Variants) -> bool:
        """Exact bytes and weights, predicted latency with conversions, loss, and the memory of the real arena."""
        choices = self.program.choices(variants)
        if not feasible(self.program.problem, choices):
            return False
        memory = self.targets.memory
        return (
            memory is None or MEMORY not in self.program.problem.limits or self.packed.resident_bytes(choices) <= memory
        )


class _SwapSearch:
    def __init__(
        self,
        policy: Policy,
        predictor: Predictor,
        limits: _Limits,
        evaluate: Evaluate,
        budget: int,
        journal: Journal | None,
        progress: Progress | None,
    ) -> None:
        self.policy, self.predictor, self.limits = policy, predictor, limits
        self.evaluate, self.budget, self.journal, self.progress = evaluate, budget, journal, progress
        self.neighbourhood = _Neighbourhood(limits.program, predictor)
        self.seen: set[bytes] = set()

    def run(self) -> Polished:
        base = dict(self.policy.variants)
        losses = self._losses(base, "the plan")
        before = Measured.of(losses)
        swaps: list[Swap] = []
        while (better := self._first_better(base, losses)) is not None:
            swap, base, losses = better
            swaps.append(swap)
        best = Measured.of(losses)
        if self.progress:
            self.progress(len(self.seen), self.budget, "")
        return Polished(self._policy(base, before, best, swaps), before, best, tuple(swaps), len(self.seen))

    def _first_better(
        self, base: dict[str, Variant], losses: tuple[Losses, Losses]
    ) -> tuple[Swap, dict[str, Variant], tuple[Losses, Losses]] | None:
        """The first swap, in the order of predicted gain, that measuring confirms, the policy behind it and its losses;
        None where none is left or the budget is used up."""
        best = Measured.of(losses)
        for changes in self.neighbourhood.swaps(base):
            variants = base | changes
            if _decision(variants) in self.seen or not self.limits.kept(variants):
                continue
            if len(self.seen) >= self.budget:
                return None
            words = {layer: (str(base[layer]), str(variant)) for layer, variant in changes.items()}
            doing = ", ".join(f"{layer} {old} -> {new}" for layer, (old, new) in words.items())
            found = self._losses(variants, f"loss {best.held_back:.4g}; {doing}")
            if _confirmed(losses, found):
                return Swap(words, Measured.of(found)), variants, found
        return None

    def _losses(self, variants: Variants, doing: str) -> tuple[Losses, Losses]:
        decision = _decision(variants)
        if self.progress:
            self.progress(len(self.seen), self.budget, doing)
        self.seen.add(decision)
        names = [f"{decision.hex()} {half}" for half in ("fitted", "held back")]
        if self.journal and all(name in self.journal.records for name in names):
            return self.journal.records[names[0]], self.journal.records[names[1]]
        halves = self.evaluate(variants)
        if self.journal:
            for name, half in zip(names, halves, strict=True):
                self.journal.add(name, half)
        return halves

    def _policy(self, variants: Variants, before: Measured, after: Measured, swaps: list[Swap]) -> Policy:
        report = {
            "evaluations": len(self.seen),
            "accepted": len(swaps),
            "fitted": [before.fitted, after.fitted],
            "held_back": [before.held_back, after.held_back],
        }
        settings = {**self.policy.settings, "polish": report}
        if not swaps:
            return replace(self.policy, settings=settings)
        policy = self.predictor.policy(variants, self.policy.targets, None, settings)
        certificate, loss = self.policy.certificate, policy.predicted["loss"]
        assert loss is not None
        gap = None if certificate.bound is None else (loss - certificate.bound) / max(abs(loss), 1e-300)
        solver = f"{certificate.solver}+polish" if certificate.solver else "polish"
        polished = replace(certificate, status="feasible", objective=float(loss), gap=gap, solver=solver)
        return replace(policy, certificate=polished)


class _Neighbourhood:
    """All single moves, and all exchanges of a layer that gains with one that loses, by predicted score."""

    def __init__(self, program: Program, predictor: Predictor) -> None:
        self.menu = program.menu
        profile = predictor.loss_profile
        assert profile is not None
        self.matrix = predictor.matrix
        self.options = [(layer, variant) for layer, variants in self.menu.items() for variant in variants]
        self.layer = np.array([list(self.menu).index(layer) for layer, _ in self.options])
        self.number = np.array([profile.number(*option) for option in self.options])
        size = next(resource for resource in program.problem.resources if resource.name == BYTES)
        self.bytes = np.concatenate([size.linear[group] for group in range(len(self.menu))])
        self.most_bytes = size.limit
        self.constant_bytes = size.constant

    def swaps(self, base: Variants) -> Iterator[dict[str, Variant]]:
        """Changes in the order of the predicted score behind them (ties: the network's order), those left out that
        alone by their bytes break the limit."""
        place = {option: index for index, option in enumerate(self.options)}
        chosen = np.array([place[layer, base[layer]] for layer in self.menu])
        moves = np.array([i for i in range(len(self.options)) if i not in set(chosen.tolist())], int)
        if not len(moves):
            return
        q, new, old = self.matrix, self.number[moves], self.number[chosen[self.layer[moves]]]
        pull = q[:, self.number[chosen]].sum(1)
        single = q[new, new] - q[old, old] + 2 * (pull[new] - q[new, old] - pull[old] + q[old, old])
        grown = self.bytes[moves] - self.bytes[chosen[self.layer[moves]]]
        room = np.inf if self.most_bytes is None else self.most_bytes - self.constant_bytes - self.bytes[chosen].sum()
        first, second = np.nonzero((single[:, None] < 0) & (single[None, :] >= 0) & self._apart(moves))
        meeting = q[new[first], new[second]] - q[new[first], old[second]] - q[old[first], new[second]]
        both = single[first] + single[second] + 2 * (meeting + q[old[first], old[second]])
        change = np.concatenate([single, both])
        more = np.concatenate([grown, grown[first] + grown[second]])
        order = np.argsort(change, kind="stable")
        for index in order[more[order] <= room].tolist():
            parts = [index] if index < len(moves) else [first[index - len(moves)], second[index - len(moves)]]
            yield dict(self.options[moves[part]] for part in parts)

    def _apart(self, moves: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which pairs of moves are of different layers [moves, moves]."""
        layers = self.layer[moves]
        return np.asarray(layers[:, None] != layers[None, :])


def _confirmed(before: tuple[Losses, Losses], after: tuple[Losses, Losses]) -> bool:
    """Whether the mean loss falls on both halves, and on all images by more than the paired standard error."""
    gains = [a.astype(np.float64) - b for a, b in zip(before, after, strict=True)]
    if min(float(gain.mean()) for gain in gains) <= 0:
        return False
    together = np.concatenate(gains)
    return bool(together.mean() > together.std() / np.sqrt(len(together)))


def _decision(variants: Variants) -> bytes:
    """What tells policies apart."""
    text = json.dumps([[layer, str(variant)] for layer, variant in sorted(variants.items())])
    return hashlib.sha256(text.encode()).digest()


__all__ = ["Evaluate", "Losses", "Measured", "Polished", "Swap", "polish"]
