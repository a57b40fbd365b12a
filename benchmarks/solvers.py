"""Solvers side by side on recorded problems (benchmarks/instances): objective, bound, gap, seconds.

    python benchmarks/solvers.py benchmarks/instances/*.arrow [--time-limit 60] [--only bitplan,gscip] [--json FILE]
    python benchmarks/solvers.py gram:60x30 chain:200x12x4     # made-up ones, see made_problems.py

`bitplan` is what `optimize plan` runs; the others are its parts and baselines: greedy, annealing alone, the optimum
without pair costs (separable), CP-SAT and HiGHS on the linearised program, GSCIP on the quadratic one. Objectives are in
the unit of the profile; every choice is checked in exact integers.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gscip
from made_problems import made_problem

from bitplan.atomic_file import write_atomically
from bitplan.optimizer.check import check
from bitplan.optimizer.problem import Problem
from bitplan.optimizer.problem_file import read_problem
from bitplan.optimizer.solution import Solution
from bitplan.optimizer.solvers import BY_NAME, solve

Run = Callable[[Problem, float, int], Solution]


def _alone(name: str) -> Run:
    return lambda problem, limit, seed: BY_NAME[name].solve(problem, time_limit=limit, seed=seed)


RUNS: Mapping[str, Run] = {
    "bitplan": lambda problem, limit, seed: solve(problem, time_limit=limit, seed=seed),
    **{name: _alone(name) for name in ("greedy", "separable", "annealing", "cp-sat", "highs")},
    "gscip": lambda problem, limit, seed: gscip.solve(problem, limit),
}


def problem_named(instance: str) -> Problem:
    """A recorded problem by its file, or a made-up one by its name."""
    return read_problem(Path(instance)) if instance.endswith(".arrow") else made_problem(instance)


def record(instance: str, name: str, time_limit: float, seed: int) -> dict[str, Any]:
    """One solver on one instance. Raises WrongSolutionError where its answer does not hold."""
    problem = problem_named(instance)
    begin, processor = time.perf_counter(), time.process_time()
    answer = RUNS[name](problem, time_limit, seed)
    seconds, processor = time.perf_counter() - begin, time.process_time() - processor
    check(problem, answer)
    return {
        "instance": Path(instance).stem,
        "solver": name,
        "status": str(answer.status),
        "objective": None if answer.objective is None else problem.value(answer.objective),
        "bound": None if answer.bound is None else problem.value(answer.bound),
        "gap": answer.gap,
        "seconds": seconds,
        "processor_seconds": processor,
    }


def row(found: Mapping[str, Any]) -> str:
    gap = "" if found["gap"] is None else f"{100 * found['gap']:.3f} %"
    numbers = ["" if found[key] is None else f"{found[key]:.6g}" for key in ("objective", "bound")]
    times = [f"{found[key]:.2f}" for key in ("seconds", "processor_seconds")]
    return "| " + " | ".join([found["instance"], found["solver"], *numbers, gap, *times]) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("instances", nargs="+")
    parser.add_argument("--time-limit", type=float, default=60.0, help="seconds for each solver")
    parser.add_argument("--only", default=",".join(RUNS), help="solvers, separated by commas")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    arguments = parser.parse_args()
    names = arguments.only.split(",")
    if unknown := [name for name in names if name not in RUNS]:
        parser.error(f"unknown solver {unknown[0]!r}; known are {', '.join(RUNS)}")
    records = []
    print(
        "| instance | solver | objective | bound | gap | seconds | processor seconds |\n|---|---|---:|---:|---:|---:|---:|"
    )
    for instance in arguments.instances:
        for name in names:
            if name == "gscip" and not gscip.fits(problem_named(instance)):
                print(f"| {Path(instance).stem} | {name} | not for limits with pair costs | | | | |", flush=True)
                continue
            records.append(record(instance, name, arguments.time_limit, arguments.seed))
            print(row(records[-1]), flush=True)
            if arguments.json is not None:
                write_atomically(arguments.json, json.dumps(records, indent=1).encode())


if __name__ == "__main__":
    main()
