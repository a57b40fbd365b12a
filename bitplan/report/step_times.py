"""The milliseconds of every step of an artifact, as timed on request and kept in the result folder."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bitplan.artifact_commands import bench_artifact
from bitplan.atomic_file import write_atomically
from bitplan.errors import FileFormatError
from bitplan.profiles.fingerprint import Fingerprint, this_machine
from bitplan.progress import Reporter

STEP_TIMES = "step-times.json"
FORM, VERSION = "bitplan step times", 1
RUNS = 200


@dataclass(frozen=True, slots=True)
class StepTimes:
    """Medians in milliseconds: `latency_ms` of one inference in a fresh process, `steps_ms` of each step; `artifact` is
    the SHA-256 of the file that was timed."""

    artifact: str
    machine: Fingerprint
    threads: int
    batch: int
    latency_ms: float
    steps_ms: dict[str, float]


def time_steps(artifact: Path, threads: int, batch: int, reporter: Reporter) -> StepTimes:
    """Times an artifact here. Raises BitplanError where it cannot be run."""
    measured, _ = bench_artifact(artifact, RUNS, threads, batch, reporter)
    digest = hashlib.sha256(artifact.read_bytes()).hexdigest()
    median = measured["latency_ms"]["median"]
    return StepTimes(digest, this_machine(), threads, batch, median, measured["steps_ms"])


def write_step_times(path: Path, times: StepTimes) -> None:
    """Writes atomically. Raises OSError where that fails."""
    content = {"format": FORM, "version": VERSION, **asdict(times), "machine": times.machine.to_json()}
    write_atomically(path, json.dumps(content, indent=1).encode())


def read_step_times(path: Path, artifact: bytes) -> StepTimes:
    """Raises FileFormatError for what `write_step_times` has not written, and for times of another artifact."""
    try:
        content: dict[str, Any] = json.loads(path.read_bytes())
        if (content.pop("format"), content.pop("version")) != (FORM, VERSION):
            raise ValueError("another format or version")
        steps = {name: _milliseconds(value, name) for name, value in content.pop("steps_ms").items()}
        machine = Fingerprint.from_json(content.pop("machine"))
        latency = _milliseconds(content.pop("latency_ms"), "latency_ms")
        found = StepTimes(machine=machine, steps_ms=steps, latency_ms=latency, **content)
        if wrong := [count for count in (found.threads, found.batch) if type(count) is not int]:
            raise ValueError(f"threads and batch are whole numbers, not {wrong[0]!r}")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise FileFormatError(
            f"{path} holds no times of steps ({error}); delete it, or time again with `optimize report --time`"
        ) from None
    if found.artifact != hashlib.sha256(artifact).hexdigest():
        raise FileFormatError(f"{path} is of another artifact; time this one with `optimize report --time`")
    return found


def _milliseconds(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise ValueError(f"{name} is {value!r}, no milliseconds")
    return float(value)
