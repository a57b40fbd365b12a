"""The latency of a module, with or without drop-ins, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from bitplan.config import Config, save_resolved
from bitplan.errors import BitplanError
from bitplan.profiles.device import Latency
from bitplan.profiles.measure_policy import RUNS, SECONDS, TimedArtifact


def time_module(
    config: Config,
    inputs: Mapping[str, NDArray[Any]],
    *,
    artifact: bytes | None = None,
    rest: bool = False,
    runs: int = RUNS,
    seconds: float = SECONDS,
) -> TimedArtifact:
    """Times inferences of the configured model on the raw images in `inputs`, with the artifact's drop-ins in place if
    there is one; with `rest`, without the time that its leaves take. Preprocessing does not count. Raises BitplanError
    with the child's last words if it fails."""
    with tempfile.TemporaryDirectory(prefix="bitplan-") as name:
        folder = Path(name)
        save_resolved(folder / "optimize.yaml", config)
        save_file({"images": np.ascontiguousarray(next(iter(inputs.values())))}, folder / "images.safetensors")
        # -P: no module of the current folder takes the place of one of ours (PYTHONPATH still counts).
        command = [sys.executable, "-P", "-m", "bitplan.hybrid.time_module", str(folder)]
        command += ["--runs", str(runs), "--seconds", str(seconds)]
        if artifact is not None:
            (folder / "network.bitplan").write_bytes(artifact)
            command += ["--replaced"]
        if rest:
            command += ["--rest"]
        child = subprocess.run(command, check=False, capture_output=True, text=True)
    if child.returncode:
        reason = child.stderr.strip().splitlines()[-1:] or [f"it ended with status {child.returncode}"]
        raise BitplanError(
            f"timing the model failed: {reason[0]}"
            "; if memory or time ran out, give a smaller --batch or fewer images, then run the command again"
        )
    result = json.loads(child.stdout.strip().splitlines()[-1])
    return TimedArtifact(**{key: Latency(**quantiles) for key, quantiles in result.items()})
