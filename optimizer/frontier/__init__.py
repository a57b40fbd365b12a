"""The trade-off of loss, latency and bytes: policies that nothing dominates, each with its certificate."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from bitplan.errors import BitplanError, InfeasibleError, UsageError
from bitplan.html_table import html_table
from bitplan.network import Network
from bitplan.optimizer.build_problem import BYTES, LATENCY, LOSS, Menu, Program
from bitplan.optimizer.frontier.answer_log import AnswerLog
from bitplan.optimizer.frontier.epsilon import Answer, EpsilonConstraint, Limits, OutOfTimeError
from bitplan.optimizer.frontier.grid import Refinement, first_grid
from bitplan.optimizer.infeasible import explain
from bitplan.optimizer.packing import PackedSolver
from bitplan.optimizer.plan import uniform_policies
from bitplan.optimizer.predict import Predictor
from bitplan.optimizer.problem import Choices
from bitplan.policies.policy import Certificate, Policy
from bitplan.targets import Targets
from bitplan.variant import Variant

if TYPE_CHECKING:
    from bitplan.profiles.device import DeviceProfile
    from bitplan.profiles.loss import LossProfile

Progress = Callable[[int, int, str], None]

POINTS = 40
"""Points after which the curve is refined no further."""


@dataclass(frozen=True)
class Point:
    """A policy of the trade-off by name. Its targets are the limits under which its certificate holds; `efficient`:
    proven that no policy at all dominates it. `uniform`: the variant that all layers have, or as many as may; then
    `dominated_by` names the point that is no worse in loss, latency and bytes and better in one, if there is one."""

    name: str
    policy: Policy
    efficient: bool = False
    uniform: str = ""
    dominated_by: str = ""


@dataclass(frozen=True)
class Frontier:
    """Points from the smallest to the largest file, then the uniform policies. `finished`: the time sufficed for all
    points asked for."""

    points: tuple[Point, ...]
    scale: str
    """What losses are in: a metric, or the score of an estimator."""
    finished: bool
    seconds: float
    """Spent on solving, interrupted runs included."""

    def _repr_html_(self) -> str:
        columns = ("point", "file, bytes", "latency, ms", f"loss, {self.scale}", "gap", "")
        return html_table(columns, map(_row, self.points))


def _row(point: Point) -> tuple[object, ...]:
    predicted = point.policy.predicted
    figures = [predicted.get(name) for name in ("file_bytes", "latency_ms", "loss")]
    said = f"dominated by {point.dominated_by}" if point.dominated_by else "efficient" if point.efficient else ""
    return (point.name, *figures, point.policy.certificate.gap, said)


def frontier(
    network: Network,
    loss_profile: LossProfile,
    device_profile: DeviceProfile | None,
    targets: Targets,
    menu: Menu,
    *,
    points: int = POINTS,
    threads: int = 1,
    batch: int = 1,
    time_limit: float = 60.0,
    seed: int = 0,
    log: Path | None = None,
    progress: Progress | None = None,
) -> Frontier:
    """About `points` policies between the smallest or fastest and the best within `targets` (limits that hold for all
    of them), and the uniform policies beside them. Without a device profile latency is left out.

    `time_limit`: seconds of solving altogether; when they are used up the points found so far are returned. `log`: a file
    of what was solved, from which an interrupted frontier goes on; kept by this function, removed by nobody.
    Raises UsageError for an objective other than the loss and for what `plan` refuses, InfeasibleError where nothing
    meets the targets, BitplanError where nothing was found in time."""
    if targets.objective != LOSS:
        raise UsageError(f"a frontier trades loss against the rest; leave out the objective {targets.objective!r}")
    packed = PackedSolver.of(network, loss_profile, device_profile, targets, menu, threads=threads, batch=batch)
    program, predictor = packed.program, packed.predictor
    uniforms = {v: program.choices(variants) for v, variants in uniform_policies(network, program.menu).items()}
    answers = AnswerLog(log, _key(program, time_limit, seed))
    try:
        solver = EpsilonConstraint(program, packed, answers, time_limit, seed, list(uniforms.values()))
        finished = _Course(solver, uniforms, points, progress, predictor).run()
    finally:
        answers.close()
    named = _Naming(program, predictor, solver, targets, {"seed": seed, "time_limit": time_limit})
    return Frontier(named.points(uniforms), loss_profile.scale, finished, solver.seconds)


def _key(program: Program, time_limit: float, seed: int) -> str:
    """What the answers depend on: every number of the program, the time and the seed."""
    digest = hashlib.sha256(json.dumps([program.problem.objective, time_limit, seed]).encode())
    for group in program.problem.groups:
        digest.update(json.dumps([group.name, group.options]).encode())
    for resource in program.problem.resources:
        head = [resource.name, resource.target, resource.constant, resource.limit, resource.resolution]
        digest.update(json.dumps(head).encode())
        for table in resource.linear:
            digest.update(table.tobytes())
        for link, table in resource.pairs.items():
            digest.update(json.dumps(link).encode() + table.tobytes())
    for link, mask in program.problem.forbidden.items():
        digest.update(json.dumps(link).encode() + mask.tobytes())
    return digest.hexdigest()


class _Course:
    """Asks for one pair of limits after the other."""

    def __init__(
        self,
        solver: EpsilonConstraint,
        uniforms: Mapping[Variant, Choices],
        points: int,
        progress: Progress | None,
        predictor: Predictor,
    ) -> None:
        self.solver, self.uniforms, self.points, self.progress = solver, uniforms, points, progress
        self.stated = predictor.stated
        self.waiting = points
        solver.solves_left = lambda: 2 * max(self.waiting, 1)

    def run(self) -> bool:
        """True where everything was asked and answered in time."""
        try:
            self._ask_all()
        except OutOfTimeError:
            return False
        return True

    def _ask_all(self) -> None:
        solver = self.solver
        self._report("the best")
        best = solver.answer(solver.loosest)
        if best.choices is None:
            raise self._nothing(best)
        self._report("the smallest and the fastest")
        low, ends = solver.totals(best.choices), [best.choices]
        for axis in range(len(solver.axes)):
            least = solver.least(axis)
            if least is None:
                continue
            low = (*low[:axis], min(least, low[axis]), *low[axis + 1 :])
            end = solver.answer((*solver.loosest[:axis], low[axis], *solver.loosest[axis + 1 :]))
            ends += [] if end.choices is None else [end.choices]
        # the fastest may be larger than the best, and the smallest slower
        high = tuple(map(max, *map(solver.totals, ends)) if len(ends) > 1 else solver.totals(best.choices))
        uniform = [solver.totals(choices) for choices in self.uniforms.values()]
        capped = [tuple(min(a, b) for a, b in zip(limits, solver.loosest, strict=True)) for limits in uniform]
        grid = list(dict.fromkeys([*first_grid(low, high), *capped]))
        for number, limits in enumerate(grid):
            self.waiting = max(len(grid) - number, self.points - len(self._distinct()))
            self._report(self._described(limits))
            solver.answer(limits)
        refinement = Refinement(self._totals, self._loss, low, high)
        while (found := len(self._distinct())) < self.points:
            finer = refinement.next(list(solver.answers.values()))
            if finer is None:
                break
            self.waiting = self.points - found
            self._report(self._described(finer))
            solver.answer(finer)

    def _nothing(self, best: Answer) -> BitplanError:
        solver = self.solver
        if best.infeasible:
            found = explain(
                solver.program.problem,
                time_limit=solver.time_limit,
                seed=solver.seed,
                solve=solver.packed.solve,
                conflicts=True,
                stated=self.stated,
            )
            return InfeasibleError(found.text(), found.to_json())
        return BitplanError(
            f"no policy that meets the limits was found in the time that one solve may take of {solver.time_limit:g} s, "
            "and none was proven impossible; raise --time-limit or the limits"
        )

    def _distinct(self) -> set[Choices]:
        return {answer.choices for answer in self.solver.answers.values() if answer.choices is not None}

    def _totals(self, answer: Answer) -> Limits:
        assert answer.choices is not None
        return self.solver.totals(answer.choices)

    def _loss(self, answer: Answer) -> float:
        assert answer.choices is not None
        return self.solver.loss.total(answer.choices) * self.solver.loss.resolution

    def _described(self, limits: Limits) -> str:
        values = [limit * axis.resolution for limit, axis in zip(limits, self.solver.axes, strict=True)]
        size = f"{int(values[0]):,} bytes"
        return f"{size}, {1e3 * values[1]:.4g} ms" if len(values) > 1 else size

    def _report(self, doing: str) -> None:
        if self.progress:
            done = len(self._distinct())
            self.progress(done, max(self.points, done + 1), doing)


@dataclass(frozen=True)
class _Naming:
    """Answers as named points: those that no other one dominates, each with the best bound that is known for it."""

    program: Program
    predictor: Predictor
    solver: EpsilonConstraint
    targets: Targets
    settings: Mapping[str, object]

    def points(self, uniforms: Mapping[Variant, Choices]) -> tuple[Point, ...]:
        answers = [answer for answer in self.solver.answers.values() if answer.choices is not None]
        costs: dict[Choices, tuple[int, ...]] = {}
        for answer in answers:
            assert answer.choices is not None
            costs.setdefault(answer.choices, self._costs(answer.choices))
        found = [
            choices for choices, own in costs.items() if not any(_dominates(other, own) for other in costs.values())
        ]
        one_each = {costs[choices]: choices for choices in reversed(found)}  # of equals, the first found
        ordered = sorted(one_each.values(), key=lambda choices: (*costs[choices][1:], costs[choices][0]))
        width = max(2, len(str(len(ordered))))
        named = {choices: f"p{number:0{width}d}" for number, choices in enumerate(ordered, 1)}
        points = [self._point(name, choices, costs[choices]) for choices, name in named.items()]
        for variant, choices in uniforms.items():
            points.append(self._uniform(variant, choices, {name: costs[c] for c, name in named.items()}))
        return tuple(points)

    def _costs(self, choices: Choices) -> tuple[int, ...]:
        """Score, bytes and latency, in integer units."""
        return self.solver.loss.total(choices), *self.solver.totals(choices)

    def _point(self, name: str, choices: Choices, costs: tuple[int, ...]) -> Point:
        score, used = costs[0], costs[1:]
        own = [answer for answer in self.solver.answers.values() if answer.choices == choices]
        # where time ran out, another answer may have turned out better under the same limits
        standing = [answer for answer in own if not self._beaten(answer.limits, score)]
        limits = standing[0].limits if standing else used
        bounds = [a.bound for a in self.solver.answers.values() if a.bound is not None and a.covers(limits)]
        bound = min(max(bounds), score) if bounds else None
        profile, resolution = self.predictor.loss_profile, self.solver.loss.resolution
        assert profile is not None
        certificate = Certificate(
            "optimal" if bound == score else "feasible",
            profile.link.loss(score * resolution),
            None if bound is None else profile.link.loss(bound * resolution),
            None if bound is None else (score - bound) / max(abs(score), 1),
            own[0].seconds,
            own[0].solver,
        )
        variants = self.program.variants(choices)
        policy = self.predictor.policy(variants, self._stated(limits), certificate, self.settings)
        return Point(name, policy, bound == score and any(answer.proven for answer in own))

    def _beaten(self, limits: Limits, score: int) -> bool:
        for answer in self.solver.answers.values():
            if answer.choices is None:
                continue
            other, *used = self._costs(answer.choices)
            if other < score and all(a <= b for a, b in zip(used, limits, strict=True)):
                return True
        return False

    def _stated(self, limits: Limits) -> Targets:
        """The user's targets with these limits in place of those on bytes and latency."""
        stated = {
            axis.target: limit * axis.resolution
            for axis, limit in zip(self.solver.axes, limits, strict=True)
            if limit < axis.largest
        }
        size, latency = stated.get(BYTES), stated.get(LATENCY)
        return replace(
            self.targets,
            bytes=self.targets.bytes if size is None else int(size),
            latency=self.targets.latency if latency is None else latency,
        )

    def _uniform(self, variant: Variant, choices: Choices, points: Mapping[str, tuple[int, ...]]) -> Point:
        own = self._costs(choices)
        better = [name for name, costs in points.items() if _dominates(costs, own)]
        dominated_by = min(better, key=lambda name: points[name][0], default="")
        policy = self.predictor.policy(self.program.variants(choices), self.targets, settings=self.settings)
        return Point(f"uniform-{variant}", policy, False, str(variant), dominated_by)


def _dominates(costs: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """No worse in anything and better in something."""
    return costs != other and all(a <= b for a, b in zip(costs, other, strict=True))


__all__ = ["POINTS", "Frontier", "Point", "frontier"]
