"""The main job in a process of its own, as the experiments run it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def main_job(
    command: Sequence[str], environment: Mapping[str, str] | None = None, *, log: Path | None = None
) -> dict[str, Any]:
    """What `optimize ... --json` says, run in the root of the project; progress goes to the file `log`, or to standard error.
    Raises SystemExit unless targets were met or missed."""
    program = [
        sys.executable,
        "-c",
        "from bitplan.cli import main; main()",
        *command[1:],
        "--json",
        "--progress",
        "plain",
    ]
    everything = os.environ | dict(environment or {})
    with log.open("w") if log else nullcontext() as messages:
        done = subprocess.run(
            program, stdout=subprocess.PIPE, stderr=messages, text=True, check=False, cwd=ROOT, env=everything
        )
    if done.returncode not in (0, 4):
        raise SystemExit(f"exit code {done.returncode}; see {log}" if log else done.returncode)
    result: dict[str, Any] = json.loads(done.stdout)
    return result
