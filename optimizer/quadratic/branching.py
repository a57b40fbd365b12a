"""Branch and bound over the doubly nonnegative relaxation.

A node is a set of options still kept and of pairs still allowed. The relaxation is improved step by step; whatever it
proves cannot go below the target is left out at once. Where that stalls, one group's options are split in two. The
target starts some percent below the incumbent, where much can be left out and a bound is soon proven, and moves up to
the incumbent in stages.

Nodes are taken in batches, best first, and results are joined in order: threads do not change the answer.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import product
from math import inf

import numpy as np

from bitplan.optimizer.problem import Choices, Integers, Mask
from bitplan.optimizer.quadratic.limits import LinearLimits
from bitplan.optimizer.quadratic.matrices import Floats, Matrices
from bitplan.optimizer.quadratic.relaxation import Iterate, Relaxation

GOALS = (0.1, 0.03, 0.01, 0.003, 0.001, 0.0003, 0.0)
"""Gaps that are proven one after the other."""
STEPS, FEWEST_STEPS = 25, 5
"""Steps of the relaxation between two bounds; in proportion fewer beyond MANY options, where each takes seconds."""
MANY = 800
"""Options of all groups beyond which the relaxation is not warmed up without a target: the first things left out make it
so much smaller that they are worth more than steps."""
PENALTY = 0.5
"""The splitting's penalty, times the number of groups."""
QUICK = 40
"""Nodes of a stage after which the next goal is skipped."""
TIGHTEN = 4
"""Bounds of the first relaxation that are computed before each stage."""
PATIENCE = 4
"""Bounds over which the gain is looked at before a node is split."""
WORTHWHILE = 0.15
"""Share of the distance to the target that so many bounds must have gained."""
MARGIN = 1e-3
"""By how much a bound must lie above the whole number below the best objective."""
THREADS = 2
FEW = 32
"""Choices that are quicker tried one by one."""
SMALL = 60
"""Options of all groups up to which all goals but the last are skipped."""
BATCH = 4
"""Nodes that are taken at a time."""


@dataclass(frozen=True, eq=False)
class Node:
    """`bound`: of all choices of the kept options, in units of the objective; the state to go on from, if any."""

    kept: Integers
    allowed: Mask
    bound: float = -inf
    relaxation: Relaxation | None = None
    iterate: Iterate | None = None


@dataclass(eq=False)
class Outcome:
    """What became of a node: the parts that may still hold choices below the target, and a bound of all the rest."""

    bound: float
    open: list[Node] = field(default_factory=list)
    found: list[Choices] = field(default_factory=list)


class Branching:
    """`best`: the least objective known, infinite without one; `bound` of all choices; `shares` [n] of the options in
    the first relaxation. `evaluate` gives the objective of choices, infinite where they break a limit."""

    best: float
    choices: Choices | None
    shares: Floats | None

    def __init__(self, program: Matrices, evaluate: Callable[[Choices], float], stopped: Callable[[], bool]) -> None:
        self.program, self.evaluate, self.stopped = program, evaluate, stopped
        self.limits = LinearLimits(program)
        self.best, self.choices = inf, None
        self.bound = -inf
        self.shares = None
        self.nodes = 0
        options = int(program.offsets[-1])
        self.steps = int(np.clip(STEPS * MANY // options, FEWEST_STEPS, STEPS))
        kept = self.limits.possible(np.arange(options))
        self.root: Node | None = Node(kept, program.allowed) if len(kept) else None

    def offer(self, choices: Choices) -> None:
        """Takes feasible choices that are better than the best known."""
        if (objective := self.evaluate(choices)) < self.best:
            self.best, self.choices = objective, choices

    def warm_up(self, checks: int) -> None:
        """Improves the first relaxation without a target: the same whatever is found meanwhile."""
        if self.root is None or self.stopped():
            return
        outcome = self._process(self.root, inf, 1 if len(self.root.kept) > MANY else checks)
        if outcome.found:  # a single choice is left, which `run` will settle
            return
        self.root = outcome.open[0] if outcome.open else None
        if self.root is not None and self.root.relaxation is not None and self.root.iterate is not None:
            self.bound = max(self.bound, self.root.bound)
            relaxation = self.root.relaxation
            shares = np.zeros(int(self.program.offsets[-1]))
            shares[relaxation.kept] = relaxation.shares(self.root.iterate)[relaxation.slot]
            self.shares = shares

    def run(self, between: Callable[[], None]) -> None:
        """Until the bound has met the best objective, or `stopped`; calls `between` after each stage, and after 1, 2, 4, 8 ...
        batches of nodes, which take long in large programs."""
        goals = GOALS if self.program.offsets[-1] > SMALL else GOALS[-1:]
        nodes = 0
        for goal in goals:
            if self.stopped() or self.root is None or self.finished:
                return
            reached = self.best < inf and self.best - self.bound <= goal * abs(self.best)
            if goal and (reached or 0 < nodes <= QUICK):
                nodes = 0  # a stage that took few nodes says that the next one can be left out
                continue
            before = self.nodes
            self._tighten()
            if not self.finished:
                self._prove(goal, between)
            nodes = self.nodes - before
            if not self.finished:
                between()

    def _tighten(self) -> None:
        """Leaves out of the root, once and for all, what is no better than the best choices."""
        if self.root is None or self.best == inf:
            return
        target = self._target(0.0)
        outcome = self._process(self.root, target, TIGHTEN)
        for choices in outcome.found:
            self.offer(choices)
        if outcome.open:
            self.root = outcome.open[0]
            self.bound = max(self.bound, min(self.root.bound, target))
        else:
            self.bound = max(self.bound, min(outcome.bound, target, self.best))

    @property
    def finished(self) -> bool:
        return self.best < inf and self.bound > self.best - 1

    def _target(self, goal: float) -> float:
        """A bound at least this high is as good as needed: objectives are whole numbers."""
        if self.best == inf:
            return inf
        nearly_one = 1 - MARGIN - 4 * float(np.spacing(abs(self.best)))
        return self.best - max(goal * abs(self.best), nearly_one)

    def _prove(self, goal: float, between: Callable[[], None]) -> None:
        """Raises the bound to the goal's target, unless stopped."""
        if self.root is None:
            return
        settled = inf  # a bound of what the stage has settled
        number, batches = 0, 0
        queue: list[tuple[float, int, Node]] = [(self.root.bound, number, self.root)]
        with ThreadPoolExecutor(THREADS) as pool:
            while queue and not self.stopped():
                target = self._target(goal)
                settled = min(settled, target)  # what is left out of open nodes is only known to be no lower
                batch = [heapq.heappop(queue)[2] for _ in range(min(BATCH, len(queue)))]
                for outcome in pool.map(lambda node, t=target: self._process(node, t), batch):
                    settled = min(settled, outcome.bound)
                    for choices in outcome.found:
                        self.offer(choices)
                    for node in outcome.open:
                        number += 1
                        heapq.heappush(queue, (node.bound, number, node))
                self.nodes += len(batch)
                batches += 1
                lowest = min([settled, *(bound for bound, _, _ in queue)])
                self.bound = max(self.bound, min(lowest, self.best))
                if queue and batches & (batches - 1) == 0:
                    between()
        if not queue and self.best == inf:
            self.root = None  # nothing but what cannot be chosen was left out, and nothing is left

    def _process(self, node: Node, target: float, checks: int | None = None) -> Outcome:
        """Improves a node's bound up to the target, else splits it; with `checks`, stops after so many bounds."""
        if node.bound >= target:
            return Outcome(node.bound)
        kept, allowed, bound = self.limits.possible(node.kept), node.allowed.copy(), node.bound
        if not len(kept):
            return Outcome(target)
        if self.stopped():
            return Outcome(inf, [node])
        relaxation = Relaxation(self.program, self.limits, kept, allowed)
        if node.relaxation is not None and node.iterate is not None:
            iterate = relaxation.inherit(node.relaxation, node.iterate)
        else:
            iterate = relaxation.start()
        history: list[float] = []
        done = 0
        while True:
            if np.prod(np.bincount(self._group(kept)), dtype=np.float64) <= FEW:
                return self._enumerated(kept)
            if not relaxation.allowed.any((1, 2)).all():
                return Outcome(target)  # two groups between which nothing is allowed any more
            relaxation.improve(iterate, self.steps, PENALTY / self.program.groups, self.stopped)
            bounds = relaxation.bounds(iterate)
            bound = max(bound, bounds.whole)
            done += 1
            if bound >= target:
                return Outcome(bound)
            history.append(bound)
            slot = relaxation.slot
            beaten = bounds.options[slot] >= target
            worse = bounds.pairs[np.ix_(slot, slot)] >= target
            allowed[np.ix_(kept, kept)] &= ~(worse & ~np.eye(len(kept), dtype=np.bool_))
            if beaten.any():
                kept = self.limits.possible(kept[~beaten])
                if not len(kept) or len(np.unique(self._group(kept))) < self.program.groups:
                    return Outcome(target)
                smaller = Relaxation(self.program, self.limits, kept, allowed)
                relaxation, iterate = smaller, smaller.inherit(relaxation, iterate)
                history = history[-1:]
            else:
                relaxation.allow(allowed)
            stalled = len(history) > PATIENCE and (
                target == inf or history[-1] - history[-1 - PATIENCE] < WORTHWHILE * (target - bound)
            )
            if self.stopped() or done == checks:
                return Outcome(inf, [Node(kept, allowed, bound, relaxation, iterate)])
            if stalled and checks is None:
                halves = self._split(relaxation, iterate)
                rounded = self._rounded(relaxation, iterate)
                return Outcome(inf, [Node(half, allowed, bound, relaxation, iterate) for half in halves], [rounded])

    def _group(self, kept: Integers) -> Integers:
        return np.asarray(np.searchsorted(self.program.offsets, kept, side="right") - 1)

    def _enumerated(self, kept: Integers) -> Outcome:
        """The best of all choices of the kept options."""
        group = self._group(kept)
        options = [(kept[group == g] - self.program.offsets[g]).tolist() for g in range(self.program.groups)]
        bound, choices = min((self.evaluate(choices), choices) for choices in product(*options))
        return Outcome(bound, found=[choices])

    def _rounded(self, relaxation: Relaxation, iterate: Iterate) -> Choices:
        shares = np.where(relaxation.filled.ravel(), relaxation.shares(iterate), -1.0)
        places = shares.reshape(relaxation.filled.shape).argmax(1) + np.arange(relaxation.groups) * relaxation.width
        return tuple((relaxation.option[places] - self.program.offsets[:-1]).tolist())

    def _split(self, relaxation: Relaxation, iterate: Iterate) -> tuple[Integers, Integers]:
        """Splits the group whose options, weighed by their shares, differ most in what they cost beside the rest; in
        the order of those costs, where half of the shares lies on either side."""
        kept, group = relaxation.kept, self._group(relaxation.kept)
        shares = np.maximum(relaxation.shares(iterate)[relaxation.slot], 0.0)
        objective = self.program.objective
        costs = objective.linear[kept].copy()
        if objective.pairs is not None:
            costs += objective.pairs[np.ix_(kept, kept)] @ shares
        best, chosen = -1.0, (kept, kept)
        for g in range(self.program.groups):
            members = np.flatnonzero(group == g)
            if len(members) < 2:
                continue
            weights = shares[members] + 1e-9
            weights = weights / weights.sum()
            spread = float(weights @ np.abs(costs[members] - weights @ costs[members]))
            if spread > best:
                order = members[np.argsort(costs[members], kind="stable")]
                weights = weights[np.argsort(costs[members], kind="stable")]
                before = np.cumsum(weights)[:-1]
                cut = 1 + int(np.argmin(np.abs(before - 0.5)))
                best = spread
                others = kept[group != g]
                chosen = (np.sort(np.append(others, kept[order[:cut]])), np.sort(np.append(others, kept[order[cut:]])))
        return chosen
