"""Runs cases: loads every candidate in its engine's process, checks it, times all in turn and makes records of it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Self

from .cases import Candidate, Case
from .engine import Unavailable
from .process import Worker
from .timing import Burst, Effort, Quantiles, interleave, per_part
from .workloads import Workload, to_json


class WrongResult(Exception):
    """A candidate does not compute what it should, so its time means nothing."""


@dataclass
class Pool:
    """The engines' processes, started when first asked for."""

    cache: Path
    stack: ExitStack = field(default_factory=ExitStack)
    workers: dict[tuple[str, str, int], Worker] = field(default_factory=dict)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stack.close()

    def worker(self, engine: str, level: str, threads: int) -> Worker:
        key = (engine, level, threads)
        if key not in self.workers:
            self.workers[key] = self.stack.enter_context(Worker(engine, level, threads, self.cache))
        return self.workers[key]

    def forget(self) -> None:
        for worker in self.workers.values():
            worker.forget()


@dataclass
class _Loaded:
    candidate: Candidate
    whole: Workload
    about: dict[str, Any]
    bursts: dict[str, Burst]
    """"whole" and, where something is subtracted, "rest"."""


def run_case(case: Case, pool: Pool, effort: Effort, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """One record per candidate that this machine and these versions have; `say` is told what is left out and why.
    Raises WrongResult."""
    loaded = []
    for candidate in case.candidates:
        try:
            loaded.append(_load(case, candidate, pool))
        except Unavailable as reason:
            say(f"left out: {candidate}: {reason}")
    bursts = {f"{i} {name}": burst for i, one in enumerate(loaded) for name, burst in one.bursts.items()}
    samples = interleave(bursts, effort)
    records = []
    for i, one in enumerate(loaded):
        calls = {name: Quantiles.of(samples[f"{i} {name}"]) for name in one.bursts}
        time = per_part(calls["whole"], calls["rest"], case.parts) if "rest" in calls else calls["whole"]
        records.append(
            {
                "part": case.part,
                "isa": case.isa,
                "workload": str(one.whole),
                **{name: getattr(one.candidate, name) for name in ("engine", "level", "variant", "threads")},
                "low_ms": time.low,
                "median_ms": time.median,
                "runs": time.runs,
                "macs": getattr(one.whole, "macs", None),
                "calls_ms": {name: asdict(call) for name, call in calls.items()},
                "description": to_json(one.whole),
                "about": one.about,
            }
        )
    pool.forget()
    return records


def _load(case: Case, candidate: Candidate, pool: Pool) -> _Loaded:
    worker = pool.worker(candidate.engine, candidate.level, candidate.threads)
    whole = candidate.workload or case.workload
    workloads = {"whole": whole} | ({"rest": case.rest} if case.rest and not candidate.workload else {})
    bursts: dict[str, Burst] = {}
    about: dict[str, Any] = {}
    for name, workload in workloads.items():
        answer = worker.load(workload, candidate.variant)
        if not answer["error"] <= answer["tolerance"]:
            raise WrongResult(
                f"{candidate} on {workload}: differs from the reference by {answer['error']:.2g} of its largest value, "
                f"{answer['tolerance']:.2g} is allowed"
            )
        about = about or {**answer["about"], "error": answer["error"], "tolerance": answer["tolerance"]}
        bursts[name] = partial(worker.time, answer["subject"])
    return _Loaded(candidate, whole, about, bursts)
