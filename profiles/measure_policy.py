"""The latency of a finished artifact, timed in a process of its own: what "the target was met" rests on."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from bitplan.errors import BitplanError
from bitplan.profiles.device import Latency

RUNS = 200
"""Fewest runs that a median which claims something is taken over."""
SECONDS = 60.0
"""Slow networks are timed for so long only: one that takes more than about 0.1 s gets fewer runs than RUNS. How many
there were is in `Latency.samples`."""

START_UP = 2.0
"""Seconds that a process takes, about, until it knows how long it will time."""
EXPECTED = "expected seconds: "
Expect = Callable[[float], None]
"""Is told how long timing will take."""


@dataclass(frozen=True, slots=True)
class TimedArtifact:
    """Seconds of one inference and of the anchor between those inferences, while the machine was least busy; and of
    one inference over all runs, busy or not."""

    latency: Latency
    anchor: Latency
    all_runs: Latency


def measure_policy(
    artifact: Path | bytes,
    inputs: Mapping[str, NDArray[Any]],
    *,
    runs: int = RUNS,
    threads: int = 1,
    seconds: float = SECONDS,
    expect: Expect | None = None,
) -> TimedArtifact:
    """Times `runs` inferences of an artifact on raw inputs (by name, batch first) in a fresh process, warmed up and in
    turn with the anchor; fewer where they do not fit into `seconds`. `expect` is told, once it is known, about how many
    seconds it will take. Raises BitplanError with the child's last words if it fails."""
    with tempfile.TemporaryDirectory(prefix="bitplan-") as folder:
        path = Path(folder) / "policy.artifact"
        if isinstance(artifact, bytes):
            path.write_bytes(artifact)
        else:
            path = artifact
        arrays = Path(folder) / "inputs.safetensors"
        save_file({name: np.ascontiguousarray(array) for name, array in inputs.items()}, arrays)
        # -P: no module of the current folder takes the place of one of ours (PYTHONPATH still counts).
        command = [sys.executable, "-P", "-m", "bitplan.profiles.time_artifact", str(path), str(arrays)]
        command += ["--runs", str(runs), "--threads", str(threads), "--seconds", str(seconds)]
        return timed_by(command, f"{artifact if isinstance(artifact, Path) else 'the artifact'}", expect)


def timed_by(command: Sequence[str], what: str, expect: Expect | None = None) -> TimedArtifact:
    """What a process that times prints in its last line. While it times it says nothing; before, in a line that begins
    with EXPECTED, how long it will take. Raises BitplanError with its last words if it fails."""
    last = ""
    with tempfile.TemporaryFile("w+") as errors:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as child:
            try:
                assert child.stdout is not None
                for line in child.stdout:
                    last = line
                    if expect and line.startswith(EXPECTED):
                        expect(float(line.removeprefix(EXPECTED)))
                status = child.wait()
            except BaseException:
                child.kill()
                raise
        errors.seek(0)
        said = errors.read().strip().splitlines()
    if status:
        reason = said[-1] if said else f"it ended with status {status}"
        raise BitplanError(
            f"timing {what} failed: {reason}; if memory ran out, give a smaller --batch, then run the command again"
        )
    return TimedArtifact(**{name: Latency(**quantiles) for name, quantiles in json.loads(last).items()})


def announce(seconds: float) -> None:
    """Says, from within such a process, how long timing will take."""
    print(f"\n{EXPECTED}{seconds:.3f}", flush=True)  # a line of its own, whatever was printed before
