"""The process that `measure_policy` starts: times one artifact and prints its quantiles as JSON.

python -m bitplan.profiles.time_artifact ARTIFACT INPUTS.safetensors --runs 200 --threads 1 --seconds 60
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from dataclasses import asdict
from pathlib import Path
from time import perf_counter

from safetensors.numpy import load_file

from bitplan.profiles.anchor import Anchor, calm_level
from bitplan.profiles.executor import Executor, Inputs, load_runtime
from bitplan.profiles.foreground import foreground
from bitplan.profiles.measure_policy import RUNS, SECONDS, Expect, TimedArtifact, announce
from bitplan.profiles.samples import calmer_half, summary

VISITS = 20
VISIT_SECONDS = 0.1
FEWEST_RUNS = 3
"""Runs of a visit: a twentieth of all, but no more than fit into VISIT_SECONDS, and no fewer than FEWEST_RUNS."""
WARM_UP_SECONDS = 0.3


def time_in_turn(
    executor: Executor, inputs: Inputs, anchor: Anchor, runs: int, seconds: float, expect: Expect | None = None
) -> TimedArtifact:
    """Times at least `runs` runs (fewer if that takes longer than `seconds`) in visits between which the anchor is
    timed; the first run of a visit is left out, since it finds the anchor's data in the caches. There are twice as many
    visits as it takes, and the half counts during which the anchor was fastest: the machine was least busy then.
    `expect` is told before the first visit how long it will take."""
    start = perf_counter()
    once = math.inf
    while perf_counter() - start < WARM_UP_SECONDS:
        with foreground():  # here too: threads start in the first run and keep the priority they start with
            once = min(once, float(executor.time_runs(inputs, 1)[0]))
    per_visit = min(-(-runs // VISITS), max(math.ceil(VISIT_SECONDS / once), FEWEST_RUNS))
    visits = 2 * -(-runs // per_visit)
    if expect:
        expect(min(seconds, visits * ((per_visit + 1) * once + sum(anchor.time()))))
    start = perf_counter()
    totals: list[list[float]] = []
    anchors: list[list[float]] = []
    while len(totals) < visits and (not totals or perf_counter() - start < seconds):
        with foreground():
            anchors.append(anchor.time())
            totals.append(executor.time_runs(inputs, per_visit + 1)[1:].tolist())
    calm = calmer_half(anchors)
    return TimedArtifact(
        summary([total for visit in calm for total in totals[visit]]),
        calm_level(anchors),
        summary([total for visit in totals for total in visit]),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("artifact", type=Path)
    parser.add_argument("inputs", type=Path)
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    options = parser.parse_args()
    executor = load_runtime(options.artifact.read_bytes(), options.threads)
    measured = time_in_turn(executor, load_file(options.inputs), Anchor(), options.runs, options.seconds, announce)
    json.dump(asdict(measured), sys.stdout)


if __name__ == "__main__":
    main()
