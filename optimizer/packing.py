"""Solves a program with the memory that the arena planner really needs.

The program knows the bytes alive at every step, and an arena can be no smaller than the fullest step; holes between
values can make it larger. So the program alone is a relaxation. Where its answer needs more memory than it says, a cut
is added, one more resource of the memory target: with exactly these value formats the memory is that of the real arena,

    weights + arena - M * (groups whose option means other formats) <= limit,

with M so large that no policy with other formats is affected. Every policy still has to keep each cut, so the bound of
the program with cuts holds for all policies that fit, and if it is infeasible none fits.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from bitplan.formats import derive_formats
from bitplan.network import Network
from bitplan.optimizer.build_problem import MEMORY, Menu, Program, build_problem
from bitplan.optimizer.check import check, feasible, objective_of
from bitplan.optimizer.memory import resident_costs, resident_weight_bytes, shift_bytes
from bitplan.optimizer.predict import Predictor
from bitplan.optimizer.problem import Choices, Problem, Resource, frozen
from bitplan.optimizer.solution import Solution, Status, from_parts
from bitplan.optimizer.solvers import solve
from bitplan.optimizer.value_formats import Kept
from bitplan.targets import Targets

if TYPE_CHECKING:
    from bitplan.profiles.device import DeviceProfile
    from bitplan.profiles.loss import LossProfile

MOST_CUTS = 64
"""Combinations of formats that are cut off one by one before the limit is tightened for all of them."""
MOST_TIGHTENINGS = 10
SHARE = 0.7
"""Of the time left, for each solve: the next one needs some too if the arena turns out too large."""

ValueKey = tuple[Kept, ...]
"""The formats of all values, in the order of the network."""


@dataclass
class PackedSolver:
    """Solves problems that differ from the program's in limits and objective only; cuts are kept between solves.
    `smallest_seen`: the least memory, in bytes, of the policies looked at since the start."""

    program: Program
    predictor: Predictor
    smallest_seen: int | None = None
    _arenas: dict[ValueKey, int] = field(default_factory=dict)
    """Bytes of the arena, for the whole batch, by the formats for which the program states too few."""

    @classmethod
    def of(
        cls,
        network: Network,
        loss_profile: LossProfile | None,
        device_profile: DeviceProfile | None,
        targets: Targets,
        menu: Menu,
        *,
        threads: int = 1,
        batch: int = 1,
    ) -> PackedSolver:
        """For the program of a network. Raises UsageError for a menu, profiles or targets that do not fit."""
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
        return cls(program, predictor)

    def solve(self, problem: Problem, *, time_limit: float, seed: int = 0, starts: Sequence[Choices] = ()) -> Solution:
        """As `solvers.solve`, of the policies whose weights and real arena keep the memory limit; where memory is the
        objective, `objective` and `bound` are real bytes. Unknown: nothing that fits was found, nor proven not to be.
        """
        if problem.objective != MEMORY and MEMORY not in problem.limits:
            return solve(problem, time_limit=time_limit, seed=seed, starts=starts)
        return _Run(self, problem, time_limit, seed).solve(starts)

    def resident_bytes(self, choices: Choices) -> int:
        """Weights and real arena; an arena larger than the program with its cuts states becomes a cut."""
        variants = self.program.variants(choices)
        resident = self.predictor.resident_bytes(variants)
        self.smallest_seen = resident if self.smallest_seen is None else min(self.smallest_seen, resident)
        stated = max(r.total(choices) for r in self.program.problem.resources if r.target == MEMORY)
        if resident > stated:
            formats = derive_formats(self.predictor.network, variants).kept
            key = tuple(formats[node.name] for node in self.predictor.network)
            self._arenas[key] = resident - resident_weight_bytes(self.predictor.network, variants)
        return resident

    @property
    def cuts(self) -> int:
        """How many combinations of formats have a cut."""
        return len(self._arenas)

    def cut(self, problem: Problem) -> Problem:
        """The problem with all cuts."""
        memory = [resource for resource in problem.resources if resource.target == MEMORY]
        cuts = [self._cut(memory, number, key) for number, key in enumerate(self._arenas)]
        return replace(problem, resources=(*problem.resources, *cuts))

    def _cut(self, memory: Sequence[Resource], number: int, key: ValueKey) -> Resource:
        groups, network = self.program.problem.groups, self.predictor.network
        other = [np.zeros(len(group.options), np.bool_) for group in groups]
        for node, formats in zip(network, key, strict=True):
            kept = self.program.kept[node.name]
            if kept.group is not None:
                other[kept.group] |= [form != formats for form in kept.formats]
        weights = [np.zeros(len(group.options), np.int64) for group in groups]
        weights[: len(self.program.menu)] = resident_costs(network, self.program.menu).values()
        constant = shift_bytes(network) + self._arenas[key]
        largest = constant + sum(int(costs.max()) for costs in weights)
        # no total of the memory target is below `smallest`, so a cut at most as large says nothing
        smallest = max(resource.smallest for resource in memory)
        excluded = max(largest - smallest, 0)
        linear = tuple(frozen(costs - excluded * mask) for costs, mask in zip(weights, other, strict=True))
        return replace(memory[0], name=f"{MEMORY} of arena {number}", linear=linear, pairs={}, constant=constant)


@dataclass
class _Run:
    """One call of PackedSolver.solve: the best policy that really fits, and the best bound."""

    packed: PackedSolver
    problem: Problem
    time_limit: float
    seed: int
    begin: float = field(default_factory=time.perf_counter)
    best: Choices | None = None
    objective: int | None = None
    bound: int | None = None
    solvers: list[str] = field(default_factory=list)

    def solve(self, starts: Sequence[Choices]) -> Solution:
        for choices in starts:
            if feasible(self.problem, choices):
                self._offer(choices)
        before = self.packed.cuts
        while True:
            answer = self._answer(self.packed.cut(self.problem))
            if answer.status == Status.INFEASIBLE:
                return replace(answer, seconds=self._seconds)
            if answer.bound is not None and (self.bound is None or answer.bound > self.bound):
                self.bound = answer.bound
                self._credit(answer)
            if answer.choices is None or self._take(answer) or self._finished:
                break
            if self.packed.cuts - before > MOST_CUTS or self._seconds >= self.time_limit:
                self._tighten(answer)
                break
        solution = from_parts(self.best, self.objective, self.bound, self._seconds, "+".join(self.solvers))
        check(self.packed.cut(self.problem), solution)
        return solution

    def _tighten(self, answer: Solution) -> None:
        """Looks for policies that fit with room to spare, first under a limit lowered by what was missing, then those
        with the least memory. Proves nothing."""
        limit = lowered = self._limit
        for _ in range(MOST_TIGHTENINGS):
            if limit is None or lowered is None or answer.choices is None or self._finished:
                break
            missing = self.packed.resident_bytes(answer.choices) - limit
            if missing <= 0:
                break
            lowered -= missing
            answer = self._answer(self._limited(lowered))
            self._take(answer)
        if self.best is None:
            self._take(self._answer(replace(self._limited(limit), objective=MEMORY)))

    def _limited(self, limit: int | None) -> Problem:
        """The problem with cuts and another memory limit."""
        cut = self.packed.cut(self.problem)
        return replace(
            cut, resources=tuple(replace(r, limit=limit) if r.target == MEMORY else r for r in cut.resources)
        )

    def _answer(self, problem: Problem) -> Solution:
        left = max(self.time_limit - self._seconds, 0.1)
        starts = () if self.best is None or not feasible(problem, self.best) else (self.best,)
        return solve(problem, time_limit=SHARE * left, seed=self.seed, starts=starts)

    def _take(self, answer: Solution) -> bool:
        """Offers an answer's choices; true where their objective is what the answer says and they fit."""
        if answer.choices is None:
            return False
        before = self.objective
        objective = self._offer(answer.choices)
        if self.objective != before:
            self._credit(answer)
        return objective is not None and objective == answer.objective

    def _offer(self, choices: Choices) -> int | None:
        """The real objective of the choices, which become the best if they are better; None if they do not fit."""
        resident = self.packed.resident_bytes(choices)
        if self._limit is not None and resident > self._limit:
            return None
        objective = resident if self.problem.objective == MEMORY else objective_of(self.problem, choices)
        if self.objective is None or objective < self.objective:
            self.best, self.objective = choices, objective
        return objective

    def _credit(self, answer: Solution) -> None:
        self.solvers += [name for name in answer.solver.split("+") if name not in self.solvers]

    @property
    def _limit(self) -> int | None:
        return next((resource.limit for resource in self.problem.resources if resource.target == MEMORY), None)

    @property
    def _finished(self) -> bool:
        return self.objective is not None and self.bound is not None and self.bound >= self.objective

    @property
    def _seconds(self) -> float:
        return time.perf_counter() - self.begin
