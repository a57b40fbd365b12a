"""The epsilon-constraint method (Haimes, Lasdon, Wismer 1971): the least loss under limits on bytes and latency, and of
all choices with that loss one that costs least.

Each answer is an optimum of its own program with the solver's bound, wherever the trade-off curve is concave too; a
weighted sum of the objectives would miss those points. Two solves for each pair of limits: the least loss, then under
that loss the least sum of bytes and latency (positive weights), so that nothing dominates the answer. Answers that
follow from earlier ones are not solved again (as in AUGMECON2, Mavrotas and Florios 2013).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from bitplan.optimizer.build_problem import BYTES, LATENCY, LOSS, Program
from bitplan.optimizer.check import feasible, objective_of
from bitplan.optimizer.frontier.answer_log import AnswerLog
from bitplan.optimizer.packing import PackedSolver
from bitplan.optimizer.problem import Choices, Integers, Link, Problem, Resource, frozen
from bitplan.optimizer.solution import Solution, Status
from bitplan.optimizer.under_limits import under_limits

Limits = tuple[int, ...]
"""The largest totals allowed, one per axis, in integer units; the largest possible total stands for no limit."""

TIDY = "bytes and latency"
SHARE = 0.04
"""Of the whole time, for one solve at most: what a killed run repeats."""
LEAST_SECONDS = 0.05


class OutOfTimeError(Exception):
    """The whole time is used up."""


@dataclass(frozen=True)
class Answer:
    """The best choices known under `limits` (None: there are none, or none were found), the proven bound of the score,
    and whether both solves were proven: then nothing dominates the choices. `infeasible`: proven that there are none."""

    limits: Limits
    choices: Choices | None
    bound: int | None
    infeasible: bool = False
    proven: bool = False
    solver: str = ""
    seconds: float = 0.0

    def covers(self, limits: Limits) -> bool:
        """Whether these limits are as loose as the others or looser."""
        return all(own >= other for own, other in zip(self.limits, limits, strict=True))


@dataclass
class EpsilonConstraint:
    """Answers pairs of limits, within `time_limit` seconds of solving altogether, those of earlier runs included."""

    program: Program
    packed: PackedSolver
    log: AnswerLog
    time_limit: float
    seed: int
    starts: Sequence[Choices] = ()
    solves_left: Callable[[], int] = lambda: 1
    answers: dict[Limits, Answer] = field(default_factory=dict)
    seconds: float = 0.0

    def __post_init__(self) -> None:
        resources = {resource.name: resource for resource in self.program.problem.resources}
        self.axes: tuple[Resource, ...] = tuple(resources[name] for name in (BYTES, LATENCY) if name in resources)
        self.loss = resources[LOSS]
        self.known: list[Choices] = list(dict.fromkeys(self.starts))

    @property
    def loosest(self) -> Limits:
        """The limits that the user has set, or none."""
        return tuple(axis.largest if axis.limit is None else min(axis.limit, axis.largest) for axis in self.axes)

    def totals(self, choices: Choices) -> Limits:
        """What choices use of each axis."""
        return tuple(axis.total(choices) for axis in self.axes)

    def least(self, axis: int) -> int | None:
        """The least total of an axis within the user's limits, as far as it was found in time."""
        objective = self.axes[axis].target
        problem = replace(self.program.problem, objective=objective)
        found = self._solve(f"least {objective}", problem)
        return None if found.choices is None else self.axes[axis].total(found.choices)

    def answer(self, limits: Limits) -> Answer:
        """The answer under these limits. Raises OutOfTimeError."""
        if limits not in self.answers:
            self.answers[limits] = self._implied(limits) or self._solved(limits)
        return self.answers[limits]

    def _implied(self, limits: Limits) -> Answer | None:
        """An answer that follows from an earlier one: an optimum under looser limits that keeps these too, or nothing
        where there is nothing under looser ones."""
        for earlier in self.answers.values():
            if not earlier.covers(limits):
                continue
            if earlier.infeasible:
                return replace(earlier, limits=limits)
            if earlier.proven and earlier.choices is not None and self._within(earlier.choices, limits):
                return replace(earlier, limits=limits)
        return None

    def _within(self, choices: Choices, limits: Limits) -> bool:
        return all(used <= limit for used, limit in zip(self.totals(choices), limits, strict=True))

    def _solved(self, limits: Limits) -> Answer:
        held = {axis.target: limit for axis, limit in zip(self.axes, limits, strict=True)}
        problem = under_limits(self.program.problem, held)
        best = self._solve(f"best {limits}", problem)
        if best.choices is None or best.objective is None:
            return Answer(limits, None, best.bound, best.status == Status.INFEASIBLE, False, best.solver, best.seconds)
        try:
            tidied = self._solve(f"tidy {limits}", self._tidying(problem, best.objective))
        except OutOfTimeError:
            return Answer(limits, best.choices, best.bound, False, False, best.solver, best.seconds)
        # without an answer in time the first one stands
        choices = tidied.choices if tidied.choices is not None else best.choices
        proven = best.status == tidied.status == Status.OPTIMAL
        return Answer(limits, choices, best.bound, False, proven, best.solver, best.seconds + tidied.seconds)

    def _tidying(self, problem: Problem, score: int) -> Problem:
        """Of the choices with at most this score, the least bytes and latency together, weighted alike by their ranges."""
        scale = max(axis.largest_total for axis in self.axes)
        linear = [np.zeros(len(group.options), np.int64) for group in problem.groups]
        pairs: dict[Link, Integers] = {}
        for axis in self.axes:
            weight = max(scale // max(axis.largest_total, 1), 1)
            linear = [sums + weight * costs for sums, costs in zip(linear, axis.linear, strict=True)]
            pairs |= {link: pairs.get(link, 0) + weight * table for link, table in axis.pairs.items()}
        frozen_pairs = {link: frozen(table) for link, table in sorted(pairs.items())}
        tidy = Resource(TIDY, tuple(map(frozen, linear)), frozen_pairs, target=TIDY)
        held = under_limits(problem, {LOSS: score})
        return replace(held, resources=(*held.resources, tidy), objective=TIDY)

    def _solve(self, name: str, problem: Problem) -> Solution:
        """A solution from the log, or found now, with all that is known to start from."""
        logged = self.log.answers.get(name)
        if logged is None:
            left = self.time_limit - self.seconds
            if left <= 0:
                raise OutOfTimeError
            allowed = max(min(left, SHARE * self.time_limit, 2 * left / max(self.solves_left(), 1)), LEAST_SECONDS)
            begin = time.perf_counter()
            found = self.packed.solve(problem, time_limit=allowed, seed=self.seed, starts=self._near(problem))
            found = replace(found, seconds=time.perf_counter() - begin)
            self.log.add(name, [found.status, found.choices, found.bound, found.seconds, found.solver])
        else:
            status, chosen, bound, seconds, solver = logged
            choices = None if chosen is None else tuple(chosen)
            objective = None if choices is None else objective_of(problem, choices)
            found = Solution(Status(status), choices, objective, bound, seconds, solver)
        self.seconds += found.seconds
        if found.choices is not None and found.choices not in self.known:
            self.known.append(found.choices)
        return found

    def _near(self, problem: Problem) -> list[Choices]:
        """Everything found so far that keeps the limits: the neighbours' answers among them."""
        return [choices for choices in self.known if feasible(problem, choices)]
