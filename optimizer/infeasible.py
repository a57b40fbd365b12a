"""Why no choice meets the limits: which of them conflict, and how far each would have to give way."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from bitplan.optimizer.problem import Problem
from bitplan.optimizer.solution import Solution, Status
from bitplan.optimizer.solvers import solve

WORDS = {
    "bytes": "file size",
    "latency": "latency",
    "memory": "memory",
    "loss": "predicted loss",
    "full_precision_weights": "full-precision weights",
}


@dataclass(frozen=True, slots=True)
class Reach:
    """How small a limited target can become, as integers of its resources: with the other limits held (None: they
    cannot be met themselves) and with no other limit at all. `held_proven`, `alone_proven`: nothing is smaller."""

    limit: int
    held: int | None
    held_proven: bool
    alone: int | None
    alone_proven: bool
    resolution: float


@dataclass(frozen=True, slots=True)
class Explanation:
    """`conflict`: targets whose limits cannot be met together; leaving out any one of them mends that, unless time ran
    out (`minimal` is False then). Empty where a solution exists or nothing was proven."""

    conflict: tuple[str, ...]
    minimal: bool
    reach: Mapping[str, Reach]

    def text(self) -> str:
        """The explanation for people: the conflict, what can be reached, and what to do."""
        if not self.conflict:
            return "no conflict between the limits was proven"
        named = [
            f"{WORDS.get(t, t)} at most {_amount(t, self.reach[t].limit, self.reach[t], up=False)}"
            for t in self.conflict
        ]
        if len(named) == 1:
            lines = [f"no policy of this menu has {named[0]}"]
        else:
            lines = [f"no policy of this menu meets all of: {'; '.join(named)}"]
        lines += [f"  {WORDS.get(target, target)}: {_reachable(target, reach)}" for target, reach in self.reach.items()]
        lines.append("Raise one of these limits to what can be reached, or allow more encodings for more layers.")
        return "\n".join(lines)


def explain(problem: Problem, *, time_limit: float = 60.0, seed: int = 0) -> Explanation:
    """A minimal set of conflicting limits, by leaving out one after the other (a deletion filter), and the smallest
    value of each limited target, by solving with that target as the objective."""
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
    if conflicting(targets):
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
        )
    return Explanation(tuple(conflict), minimal, reach)


def _relaxed(problem: Problem, held: Collection[str], objective: str) -> Problem:
    """The problem with the limits of `held` alone and another objective."""
    resources = tuple(r if r.target in held else replace(r, limit=None) for r in problem.resources)
    return replace(problem, resources=resources, objective=objective)


def _reachable(target: str, reach: Reach) -> str:
    limit = _amount(target, reach.limit, reach, up=False)
    if reach.held is not None and reach.held <= reach.limit:
        return f"{limit} can be met with the other limits held"
    if reach.held is not None:
        held = _amount(target, reach.held, reach)
        if reach.held_proven:
            return f"{limit} asked, at least {held} needed with the other limits held"
        return f"{limit} asked, {held} reached with the other limits held in the time allowed"
    if reach.alone is None:
        return f"{limit} asked; what can be reached was not found in the time allowed"
    alone = _amount(target, reach.alone, reach)
    why = "cannot be met themselves" if reach.held_proven else "were not met in the time allowed"
    return f"{limit} asked; the other limits {why}; without them {alone} can be reached"


def _amount(target: str, units: int, reach: Reach, up: bool = True) -> str:
    """An amount in the unit people write, so exact that a limit of that text can be met (rounded up)."""
    value = units * reach.resolution
    if target in ("bytes", "memory"):
        return f"{units:,} bytes ({value / 1e6:.3g} MB)"
    if target == "full_precision_weights":
        return f"{units:,}"
    factor, unit = (1e3, " ms") if target == "latency" else (1.0, "")
    text = f"{factor * value:.5g}"
    # a limit typed in is loosened by a unit at least, see builder.py
    if up and float(text) / factor < value - reach.resolution:
        text = f"{factor * value * (1 + 1e-4):.5g}"
    return text + unit
