"""The main job in a process of its own, as the experiments run it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def main_job(command: Sequence[str], environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """What `optimize ... --json` says, run in the root of the project. Raises SystemExit unless targets were met or missed."""
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
    done = subprocess.run(program, stdout=subprocess.PIPE, text=True, check=False, cwd=ROOT, env=everything)
    if done.returncode not in (0, 4):
        raise SystemExit(done.returncode)
    result: dict[str, Any] = json.loads(done.stdout)
    return result
