"""Why no choice meets the limits: which of them conflict, and how far each would have to give way."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from bitplan.optimizer.problem import Problem
from bitplan.optimizer.solution import Solution, Status
from bitplan.optimizer.solvers import solve
from bitplan.targets import format_bytes

WORDS = {
    "bytes": "file size",
    "latency": "latency",
    "memory": "memory",
    "loss": "predicted loss",
    "full_precision_weights": "full-precision weights",
}


COUNTED = ("bytes", "memory", "full_precision_weights")


class Solve(Protocol):
    """What finds solutions: `solvers.solve`, or one that keeps further conditions."""

    def __call__(self, problem: Problem, *, time_limit: float, seed: int) -> Solution: ...


@dataclass(frozen=True, slots=True)
class Reach:
    """How small a limited target can become, as integers of its resources: with the other limits held (None: they
    cannot be met themselves) and with no other limit at all. `held_proven`, `alone_proven`: nothing is smaller.
    `asked`: the limit as it was stated, in the resource's unit. `stated`: what an amount of the resource stands for, in the
    unit people state limits in."""

    limit: int
    held: int | None
    held_proven: bool
    alone: int | None
    alone_proven: bool
    resolution: float
    asked: float
    stated: Callable[[float], float] = float

    @property
    def asked_for(self) -> float:
        return self.stated(self.asked)

    def value(self, units: int) -> float:
        return self.stated(units * self.resolution)


@dataclass(frozen=True, slots=True)
class Explanation:
    """`conflict`: targets whose limits cannot be met together; leaving out any one of them mends that, unless time ran
    out (`minimal` is False then). Empty where a solution exists or nothing was proven."""

    conflict: tuple[str, ...]
    minimal: bool
    reach: Mapping[str, Reach]

    def to_json(self) -> dict[str, Any]:
        """{"conflict": [...], "limits": {target: {"asked": .., "smallest": ..}}} in bytes, milliseconds, weights and
        loss. `smallest`: the least that was reached with the other limits held or, where these cannot be met
        themselves, without them; None where nothing was found in time."""
        limits = {}
        for target, reach in self.reach.items():
            units = reach.alone if reach.held is None else reach.held
            smallest = None if units is None else _plain(target, reach.value(units))
            limits[target] = {"asked": _plain(target, reach.asked_for), "smallest": smallest}
        return {"conflict": list(self.conflict), "limits": limits}

    def text(self) -> str:
        """The explanation for people: the conflict, what can be reached, and what to do."""
        if not self.conflict:
            return "no conflict between the limits was proven"
        named = [f"{WORDS.get(t, t)} at most {_written(t, self.reach[t].asked_for)}" for t in self.conflict]
        if len(named) == 1:
            lines = [f"no policy of this menu has {named[0]}"]
        else:
            lines = [f"no policy of this menu meets all of: {'; '.join(named)}"]
        lines += [f"  {WORDS.get(target, target)}: {_reachable(target, reach)}" for target, reach in self.reach.items()]
        lines.append("Raise one of these limits to what can be reached, or allow more encodings for more layers.")
        return "\n".join(lines)


def explain(
    problem: Problem,
    *,
    time_limit: float = 60.0,
    seed: int = 0,
    solve: Solve = solve,
    conflicts: bool | None = None,
    stated: Mapping[str, Callable[[float], float]] | None = None,
) -> Explanation:
    """A minimal set of conflicting limits, by leaving out one after the other (a deletion filter), and the smallest
    value of each limited target, by solving with that target as the objective. `conflicts`: whether all limits are
    known to conflict; None: to be found out. `stated`: by target, what an amount of its resource stands for in the unit that
    limits are stated in, where that is another: a score for a loss."""
    deadline = time.perf_counter() + time_limit
    targets = list(problem.limits)
    solves = 3 * len(targets) + 1

    known: dict[tuple[frozenset[str], str], Solution] = {}

    def run(held: Collection[str], objective: str) -> Solution:
        nonlocal solves
        key = (frozenset(held), objective)
        if key not in known:
            share = max(deadline - time.perf_counter(), 0.1) / max(solves, 1)
            known[key] = solve(_relaxed(problem, held, objective), time_limit=share, seed=seed)
        solves -= 1
        return known[key]

    def conflicting(held: Collection[str]) -> bool | None:
        """None where it could not be settled. Limits conflict exactly if one of them cannot be reached when it is the
        objective; that finds a solution sooner than an unrelated objective."""
        if not held:
            return False
        *others, last = held
        solution = run(others, last)
        if solution.status == Status.INFEASIBLE:
            return True
        limit = problem.limits[last][0].limit
        assert limit is not None
        if solution.objective is not None and solution.objective <= limit:
            return False
        return True if solution.bound is not None and solution.bound > limit else None

    conflict, minimal = list(targets), True
    if conflicts is None:
        conflicts = conflicting(targets)
    if conflicts:
        for target in targets:
            rest = [other for other in conflict if other != target]
            settled = conflicting(rest)
            if settled:
                conflict = rest
            elif settled is None:
                minimal = False
    else:
        conflict, minimal = [], False
    reach = {}
    for target in targets:
        first = problem.limits[target][0]
        assert first.limit is not None
        held = run([other for other in targets if other != target], target)
        alone = run([], target)
        reach[target] = Reach(
            first.limit,
            held.objective,
            held.status in (Status.OPTIMAL, Status.INFEASIBLE),
            alone.objective,
            alone.status == Status.OPTIMAL,
            first.resolution,
            first.limit * first.resolution if first.asked is None else first.asked,
            (stated or {}).get(target, float),
        )
    return Explanation(tuple(conflict), minimal, reach)


def _relaxed(problem: Problem, held: Collection[str], objective: str) -> Problem:
    """The problem with the limits of `held` alone and another objective."""
    resources = tuple(r if r.target in held else replace(r, limit=None) for r in problem.resources)
    return replace(problem, resources=resources, objective=objective)


def _reachable(target: str, reach: Reach) -> str:
    limit = _written(target, reach.asked_for)
    if reach.held is not None and reach.held <= reach.limit:
        return f"{limit} can be met with the other limits held"
    if reach.held is not None:
        held = _needed(target, reach.held, reach)
        if reach.held_proven:
            return f"{limit} asked, at least {held} needed with the other limits held"
        return f"{limit} asked, {held} reached with the other limits held in the time allowed"
    if reach.alone is None:
        return f"{limit} asked; what can be reached was not found in the time allowed"
    alone = _needed(target, reach.alone, reach)
    why = "cannot be met themselves" if reach.held_proven else "were not met in the time allowed"
    return f"{limit} asked; the other limits {why}; without them {alone} can be reached"


def _plain(target: str, value: float) -> float:
    """A value as data: whole bytes and weights, milliseconds, loss."""
    if target in COUNTED:
        return int(value)
    return 1e3 * value if target == "latency" else value


def _written(target: str, value: float) -> str:
    """A value in the unit people write."""
    if target in COUNTED:
        size = "" if target == "full_precision_weights" else " byte" if int(value) == 1 else " bytes"
        rounded = f" ({format_bytes(value)})" if size and value >= 1000 else ""
        return f"{int(value):,}{size}{rounded}"
    return f"{1e3 * value:.5g} ms" if target == "latency" else f"{value:.5g}"


def _needed(target: str, units: int, reach: Reach) -> str:
    """An amount so exact that a limit of that text can be met: rounded up where rounding would fall short of it."""
    value = reach.value(units)
    if target not in COUNTED:
        factor = 1e3 if target == "latency" else 1.0
        # a limit typed in is loosened by a unit at least, see builder.py
        if float(f"{factor * value:.5g}") / factor < reach.value(units - 1):
            value *= 1 + 1e-4
    return _written(target, value)
