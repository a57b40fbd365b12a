"""Simulated annealing of many chains, again and again from crosses of the best choices found (a memetic search)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from bitplan.optimizer.problem import Choices, Integers
from bitplan.optimizer.quadratic.chains import Chains
from bitplan.optimizer.quadratic.matrices import Floats, Matrices

CHAINS = 32
SWEEPS = (20, 120)
"""Chains, and times that each group is chosen anew in a round: one for every option, within these limits."""
ELITE = 12
"""Different choices that later rounds are crossed from."""
COLDEST = 1 / 400
"""The last temperature of a round, as a share of its first."""
REHEAT = 0.15
"""The first temperature of later rounds, as a share of that of the first round."""
CLASH = (3.0, 40.0)
"""What a forbidden pair costs in temperatures, at a round's start and end."""
MUTATION = 0.05


class Annealing:
    """The best choices of all rounds so far. The same seed, starts and shares give the same rounds."""

    def __init__(self, program: Matrices, starts: Sequence[Choices], seed: int, stopped: Callable[[], bool]) -> None:
        self.program, self.starts, self.stopped = program, list(starts), stopped
        self.elite: dict[Choices, float] = {}
        self.random = np.random.default_rng(seed)
        self.rounds = 0
        self._warmth: float | None = None

    @property
    def best(self) -> Choices | None:
        """Feasible choices, the first of equally good ones."""
        return min(self.elite, key=lambda choices: (self.elite[choices], choices), default=None)

    def round(self, shares: Floats | None = None, extra: Choices | None = None) -> bool:
        """One more round, some chains starting from how much of each option [n] a relaxation chooses, one from `extra`.
        Says whether it found better choices."""
        before = min(self.elite.values(), default=np.inf)
        again = bool(self.rounds and self.elite)
        first = _crossed(self.program, list(self.elite), self.random) if again else self._drawn()
        if shares is not None:
            first[-CHAINS // 4 :] = _from_shares(self.program, shares, self.random, CHAINS // 4)
        if extra is not None:
            first[0] = extra + self.program.offsets[:-1]
        chains = Chains(self.program, first, self.random)
        if self._warmth is None:
            self._warmth = _warmth(chains)
        hottest = self._warmth * (REHEAT if again else 1.0)
        _keep(chains, self.elite)
        sweeps = int(np.clip(self.program.offsets[-1], *SWEEPS))
        for step in range(sweeps):
            if self.stopped():
                break
            done = step / (sweeps - 1)
            chains.sweep(hottest * COLDEST**done, CLASH[0] + (CLASH[1] - CLASH[0]) * done)
            if done > 0.5:
                _keep(chains, self.elite)
        self.rounds += 1
        return min(self.elite.values(), default=np.inf) < before

    def run(self, patience: int, most: int, shares: Floats | None = None) -> None:
        """Rounds until so many in a row found nothing better, or so many in all."""
        failed = 0
        for _ in range(most):
            failed = 0 if self.round(shares) else failed + 1
            if failed == patience or self.stopped():
                break

    def _drawn(self) -> Integers:
        """The starts, then choices at random: [chains, groups]."""
        sizes = np.diff(self.program.offsets)
        first = (self.random.random((CHAINS, self.program.groups)) * sizes).astype(np.int64)
        for k, start in enumerate(self.starts[: CHAINS // 2]):
            first[k] = start
        return np.asarray(first + self.program.offsets[:-1])


def _keep(chains: Chains, elite: dict[Choices, float]) -> None:
    """Adds the chains that are feasible and better than the worst of a full elite."""
    worst = max(elite.values()) if len(elite) == ELITE else np.inf
    for k in np.flatnonzero(chains.feasible & (chains.objective.sums < worst)):
        choices = tuple((chains.choices[k] - chains.program.offsets[:-1]).tolist())
        elite[choices] = float(chains.objective.sums[k])
    for choices in sorted(elite, key=lambda c: (elite[c], c))[ELITE:]:
        del elite[choices]


def _warmth(chains: Chains) -> float:
    """The mean spread of what the options of a group cost in the objective."""
    program, total = chains.program, chains.objective
    costs = total.form.linear + (np.zeros((len(chains.choices), 1)) if total.field is None else total.field)
    spread = [costs[:, program.members(g)].std(1).mean() for g in range(program.groups)]
    return max(float(np.mean(spread)) / 2, 1e-3)


def _crossed(program: Matrices, elite: list[Choices], random: np.random.Generator) -> Integers:
    """Children of two of the elite each, every group from either one, a few at random."""
    pool = np.array(elite) + program.offsets[:-1]
    parents = pool[random.integers(len(pool), size=(CHAINS, 2))]
    from_first = random.random((CHAINS, program.groups)) < 0.5
    children = np.where(from_first, parents[:, 0], parents[:, 1])
    sizes = np.diff(program.offsets)
    anew = (random.random(children.shape) * sizes).astype(np.int64) + program.offsets[:-1]
    return np.where(random.random(children.shape) < MUTATION, anew, children)


def _from_shares(program: Matrices, shares: Floats, random: np.random.Generator, count: int) -> Integers:
    """Every group by itself as the relaxation has it."""
    result = np.zeros((count, program.groups), np.int64)
    for group in range(program.groups):
        members = program.members(group)
        weights = np.maximum(shares[members], 1e-9)
        result[:, group] = members.start + random.choice(len(weights), count, p=weights / weights.sum())
    return result
