"""Why the plan is as it is: which limits bind and what more of them would buy, what keeps each layer, what comes next.

All numbers come from solving the program again under other limits, or with choices ruled out, never from the duals of a
relaxation: with whole choices a little more of a limit may buy nothing, and the next step may be a large one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from math import ceil, isinf
from typing import TYPE_CHECKING, Any

from bitplan.errors import UsageError
from bitplan.network import Network
from bitplan.optimizer.build_problem import LOSS, Menu
from bitplan.optimizer.check import feasible
from bitplan.optimizer.packing import PackedSolver
from bitplan.optimizer.problem import Choices, Problem, Resource
from bitplan.optimizer.reduce import reduce
from bitplan.optimizer.solution import Solution, Status
from bitplan.optimizer.under_limits import under_limits, without_choices, without_option
from bitplan.policies.policy import Policy
from bitplan.profiles.link import Link
from bitplan.targets import Targets

if TYPE_CHECKING:
    from bitplan.profiles.device import DeviceProfile
    from bitplan.profiles.loss import LossProfile

Progress = Callable[[int, int, str], None]

MORE = (0.01, 0.05)
"""By what share a limit is raised to see what that buys."""
NOTICEABLE = 1e-3
"""Share of the objective that an improvement must reach for its price to be asked."""
ALTERNATIVES = 3


@dataclass(frozen=True)
class Gain:
    """The objective under a raised limit; `bound`: it can be no lower; equal to the objective where that is proven."""

    limit: float
    objective: float
    bound: float | None


@dataclass(frozen=True)
class LimitNote:
    """One limit, in the target's unit (bytes, seconds, loss, weights). `binds`: a better objective was found without
    it (None: none was found, nor proven impossible). `gains`: by share (0.01, 0.05). `next_step`: the lowest limit found
    at which the objective falls by NOTICEABLE at least; None where nothing helps, or nothing was found."""

    target: str
    limit: float
    used: float
    binds: bool | None
    gains: Mapping[float, Gain]
    next_step: Gain | None

    @property
    def slack(self) -> float:
        return self.limit - self.used


@dataclass(frozen=True)
class LayerNote:
    """What keeps a layer's variant. `runner_up`: the variant it gets in the best plan where it may not have this one;
    `objective`: of that plan, `changed`: how many other layers change in it. `pinned`: why there is none (empty where
    there is one): `only choice`, or the limits that each alone leave none. `dominated`: other variants of the menu that
    cost no less of anything that matters than one kept."""

    layer: str
    variant: str
    runner_up: str | None
    objective: float | None
    changed: int
    pinned: str
    dominated: tuple[str, ...]
    proven: bool


@dataclass(frozen=True)
class Alternative:
    """Another plan: its objective, and the variants of the layers in which it differs from the best one (from, to)."""

    objective: float
    differences: Mapping[str, tuple[str, str]]
    proven: bool


@dataclass(frozen=True)
class PlanExplanation:
    """`objective` is the plan's, in the unit of `target`."""

    target: str
    objective: float
    limits: tuple[LimitNote, ...]
    layers: tuple[LayerNote, ...]
    alternatives: tuple[Alternative, ...]
    finished: bool
    """Whether the time sufficed for every question."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON: seconds, bytes, loss and weights; gains by share as text."""
        found = asdict(self)
        for limit in found["limits"]:
            limit["slack"] = limit["limit"] - limit["used"]
            limit["gains"] = {str(share): gain for share, gain in limit["gains"].items()}
        return found


def explain_plan(
    network: Network,
    policy: Policy,
    loss_profile: LossProfile | None,
    device_profile: DeviceProfile | None,
    targets: Targets,
    menu: Menu,
    *,
    alternatives: int = ALTERNATIVES,
    threads: int = 1,
    batch: int = 1,
    time_limit: float = 60.0,
    seed: int = 0,
    progress: Progress | None = None,
) -> PlanExplanation:
    """Explains the policy that `plan` returned for these arguments, within about `time_limit` seconds.
    Raises UsageError for a policy that is not on the menu or breaks the limits."""
    packed = PackedSolver.of(network, loss_profile, device_profile, targets, menu, threads=threads, batch=batch)
    program = packed.program
    choices = program.choices(policy.variants)
    if not feasible(program.problem, choices):
        raise UsageError("the policy breaks the limits that it is to be explained for; plan again with these limits")
    link = loss_profile.link if loss_profile is not None else Link()
    return _Explainer(program.problem, packed, choices, len(program.menu), link, time_limit, seed, progress).explain(
        alternatives
    )


class _OutOfTimeError(Exception):
    pass


class _Explainer:
    def __init__(
        self,
        problem: Problem,
        packed: PackedSolver,
        choices: Choices,
        layers: int,
        link: Link,
        time_limit: float,
        seed: int,
        progress: Progress | None,
    ) -> None:
        self.problem, self.packed, self.choices, self.layers = problem, packed, choices, layers
        self.link, self.seed, self.progress = link, seed, progress
        self.deadline = time.perf_counter() + time_limit
        self.known = [choices]
        self.best = self._objective(problem, choices)
        self.done = self.expected = 0

    def explain(self, alternatives: int) -> PlanExplanation:
        targets = list(self.problem.limits)
        self.expected = (2 + len(MORE)) * len(targets) + self.layers + alternatives
        limits: list[LimitNote] = []
        layers: list[LayerNote] = []
        others: list[Alternative] = []
        finished = True
        try:
            limits.extend(map(self._limit, targets))
            self._alternatives(alternatives, others)
            reduced = reduce(self.problem)
            layers.extend(self._layer(group, set(reduced.kept[group].tolist())) for group in range(self.layers))
        except _OutOfTimeError:
            finished = False
        objective = self._stated(self.problem, self.best)
        return PlanExplanation(self.problem.objective, objective, tuple(limits), tuple(layers), tuple(others), finished)

    def _limit(self, target: str) -> LimitNote:
        resources = self.problem.limits[target]
        first = resources[0]
        assert first.limit is not None
        used = self._used(target)
        removed = self._solve(under_limits(self.problem, {target: None}), f"without the limit on {target}")
        binds = None
        if removed.objective is not None and removed.objective < self.best:
            binds = True
        elif removed.bound is not None and removed.bound >= self.best:
            binds = False
        gains = {}
        for share in MORE:
            limit, stated = self._raised(first, share)
            if binds is False:
                gains[share] = self._gain(stated, self.best, self.best)
                continue
            found = self._solve(under_limits(self.problem, {target: limit}), f"{target} +{share:.0%}")
            objective = self.best if found.objective is None else min(found.objective, self.best)
            gains[share] = self._gain(stated, objective, found.bound)
        step = self._next_step(target) if binds else None
        return LimitNote(target, self._amount(first, first.limit), self._amount(first, used), binds, gains, step)

    def _raised(self, resource: Resource, share: float) -> tuple[int | None, float]:
        """A limit raised by a share of what it was stated as: in integer units (None: it no longer limits anything), and
        as it would be stated."""
        assert resource.limit is not None
        if resource.target != LOSS or self.link == Link():
            limit = resource.limit + ceil(share * abs(resource.limit))
            return limit, limit * resource.resolution
        stated = (1 + share) * self._amount(resource, resource.limit)
        score = self.link.score(stated)
        return None if isinf(score) else max(ceil(score / resource.resolution), resource.limit), stated

    def _next_step(self, target: str) -> Gain | None:
        """The least of this target that a noticeably better objective needs, with the other limits held. It is the
        real objective of what was found that counts."""
        wanted = self.best - max(ceil(NOTICEABLE * abs(self.best)), 1)
        held = {target: None, self.problem.objective: wanted}
        found = self._solve(under_limits(self.problem, held, target), f"the next step of {target}")
        if found.choices is None or found.objective is None:
            return None
        stated = self._amount(self.problem.limits[target][0], found.objective)
        return self._gain(stated, self._objective(self.problem, found.choices), None)

    def _gain(self, limit: float, objective: int, bound: int | None) -> Gain:
        stated = None if bound is None else self._stated(self.problem, min(bound, objective))
        return Gain(limit, self._stated(self.problem, objective), stated)

    def _layer(self, group: int, kept: set[int]) -> LayerNote:
        options, option = self.problem.groups[group].options, self.choices[group]
        name, variant = self.problem.groups[group].name, options[option]
        dominated = tuple(label for i, label in enumerate(options) if i not in kept and i != option)
        if len(options) == 1:
            self.done += 1
            return LayerNote(name, variant, None, None, 0, "only choice", (), True)
        problem = without_option(self.problem, group, option)
        found = self._solve(problem, f"the runner-up of {name}")
        if found.choices is None:
            proven = found.status == Status.INFEASIBLE
            pinned = self._blocking(problem) if proven else "no other choice was found in time"
            return LayerNote(name, variant, None, None, 0, pinned, dominated, proven)
        assert found.objective is not None
        others = [g for g in range(self.layers) if g != group and found.choices[g] != self.choices[g]]
        return LayerNote(
            name,
            variant,
            options[found.choices[group]],
            self._stated(problem, found.objective),
            len(others),
            "",
            dominated,
            found.status == Status.OPTIMAL,
        )

    def _blocking(self, problem: Problem) -> str:
        """The limits each of which alone leaves a pinned layer no other choice."""
        blocking = []
        for target in self.problem.limits:
            self.expected += 1
            found = self._solve(under_limits(problem, {target: None}), f"what {target} forbids")
            if found.choices is not None:
                blocking.append(target)
        return (
            f"any other breaks the limit on {' or '.join(blocking)}" if blocking else "any other breaks several limits"
        )

    def _alternatives(self, count: int, found: list[Alternative]) -> None:
        problem = without_choices(self.problem, self.choices, self.layers)
        for number in range(count):
            answer = self._solve(problem, f"the plan number {number + 2}")
            if answer.choices is None or answer.objective is None:
                self.done += count - number - 1
                return
            differences = {}
            for group, mine, other in zip(
                self.problem.groups[: self.layers], self.choices, answer.choices, strict=False
            ):
                if mine != other:
                    differences[group.name] = group.options[mine], group.options[other]
            stated = self._stated(problem, answer.objective)
            found.append(Alternative(stated, differences, answer.status == Status.OPTIMAL))
            problem = without_choices(problem, answer.choices, self.layers)

    def _solve(self, problem: Problem, doing: str) -> Solution:
        left = self.deadline - time.perf_counter()
        if left <= 0:
            raise _OutOfTimeError
        if self.progress:
            self.progress(self.done, self.expected, doing)
        allowed = max(2 * left / max(self.expected - self.done, 1), 0.05)
        starts = [choices for choices in self.known if feasible(problem, choices)]
        found = self.packed.solve(problem, time_limit=min(left, allowed), seed=self.seed, starts=starts)
        self.done += 1
        if found.choices is not None and found.choices not in self.known:
            self.known.append(found.choices)
        return found

    def _used(self, target: str) -> int:
        if target == "memory":
            return self.packed.resident_bytes(self.choices)
        return max(resource.total(self.choices) for resource in self.problem.limits[target])

    def _objective(self, problem: Problem, choices: Choices) -> int:
        if problem.objective == "memory":
            return self.packed.resident_bytes(choices)
        return max(resource.total(choices) for resource in problem.objectives)

    def _stated(self, problem: Problem, objective: int) -> float:
        """An objective in its unit; the score of the program as the loss that it stands for."""
        return self._amount(problem.objectives[0], objective)

    def _amount(self, resource: Resource, units: int) -> float:
        value = units * resource.resolution
        return self.link.loss(value) if resource.target == LOSS else value


__all__ = ["Alternative", "Gain", "LayerNote", "LimitNote", "PlanExplanation", "explain_plan"]
