"""The latency of a finished artifact, timed in a process of its own: what "the target was met" rests on."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
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
) -> TimedArtifact:
    """Times `runs` inferences of an artifact on raw inputs (by name, batch first) in a fresh process, warmed up and in
    turn with the anchor; fewer where they do not fit into `seconds`. Raises BitplanError with the child's last words
    if it fails."""
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
        child = subprocess.run(command, check=False, capture_output=True, text=True)
    if child.returncode:
        reason = child.stderr.strip().splitlines()[-1:] or [f"it ended with status {child.returncode}"]
        raise BitplanError(
            f"timing {artifact if isinstance(artifact, Path) else 'the artifact'} failed: {reason[0]}"
            "; if memory ran out, give a smaller --batch, then run the command again"
        )
    result = json.loads(child.stdout)
    return TimedArtifact(**{name: Latency(**quantiles) for name, quantiles in result.items()})
