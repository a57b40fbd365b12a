"""The other end of worker.py: starts the process of an engine at an ISA level, and asks it for bursts.

A process is stopped (SIGSTOP) while others are asked, so that threads that go on spinning take no time from them.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

from cap_isa.patch import LEVELS, build_handler, capped_package

from .engine import PEERS, Unavailable
from .workloads import Workload, to_json

LIBRARIES = {
    "onnxruntime": ["capi/*.so*"],
    "openvino": ["libs/libopenvino_intel_cpu_plugin.so", "libs/libopenvino.so*"],
}
"""The libraries of each peer that ask for the processor's features."""


def package_folder(engine: str) -> Path:
    found = find_spec(engine)
    if found is None or not found.submodule_search_locations:
        raise Unavailable(f"{engine} is not installed; pip install 'bitplan[bench]'")
    return Path(found.submodule_search_locations[0])


def worker_environment(engine: str, level: str, threads: int, cache: Path) -> dict[str, str]:
    """Environment of a worker: `level` is the machine's own ("native") or one that a peer is capped at."""
    benchmarks = Path(__file__).resolve().parent.parent
    paths = [str(benchmarks), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    if engine in LIBRARIES and level != "native":
        if level not in LEVELS:
            raise Unavailable(f"{engine} cannot be capped at level {level!r}; it can be at {', '.join(LEVELS)}")
        cache.mkdir(parents=True, exist_ok=True)
        folder, _ = capped_package(package_folder(engine), LIBRARIES[engine], cache)
        paths.insert(0, str(folder))
        environment |= {"BITPLAN_CAP_ISA": level, "LD_PRELOAD": str(build_handler(cache))}
    environment["PYTHONPATH"] = os.pathsep.join(paths)
    return environment


class Worker:
    """One process; use as a context manager."""

    def __init__(self, engine: str, level: str, threads: int, cache: Path) -> None:
        """Raises Unavailable where the engine is not installed or cannot be capped at the level."""
        if engine in PEERS:
            package_folder(engine)
        self.engine, self.level, self.threads = engine, level, threads
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "harness.worker", engine],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=worker_environment(engine, level, threads, cache),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.kill()
        self._process.communicate()  # closes the pipes and waits

    @property
    def pid(self) -> int:
        return self._process.pid

    def load(self, workload: Workload, variant: str) -> dict[str, Any]:
        """The answer to "load". Raises Unavailable."""
        request = {"workload": to_json(workload), "variant": variant, "threads": self.threads, "level": self.level}
        return self._ask({"do": "load", **request})

    def time(self, subject: int, runs: int) -> list[float]:
        """Seconds of each of `runs` calls."""
        seconds: list[float] = self._ask({"do": "time", "subject": subject, "runs": runs})["seconds"]
        return seconds

    def forget(self) -> None:
        """Lets go of all subjects."""
        self._ask({"do": "forget"})

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin
        assert self._process.stdout
        self._process.send_signal(signal.SIGCONT)
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(
                f"the {self.engine} process ended with code {self._process.wait()}; see its message above"
            )
        self._process.send_signal(signal.SIGSTOP)
        answer: dict[str, Any] = json.loads(line)
        if "unavailable" in answer:
            raise Unavailable(answer["unavailable"])
        return answer
