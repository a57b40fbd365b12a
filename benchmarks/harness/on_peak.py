"""The processor itself as an engine: int8 multiply-adds in registers, compiled when asked for (peak.cpp, $CXX)."""

from __future__ import annotations

import ctypes
import os
import subprocess
import tempfile
from pathlib import Path

from .engine import Subject, Unavailable, timed_calls
from .levels import NATIVE, machine_flags
from .workloads import Peak, Workload

ACCUMULATORS = 12
LANES = {"avx512vnni": 64, "avxvnni": 32, "avx2": 32}
"""Multiply-adds of one step of one accumulator; best first."""
NEEDS = {"avx512vnni": "avx512_vnni", "avxvnni": "avx_vnni", "avx2": "avx2"}


def load(workload: Workload, variant: str, threads: int, level: str) -> Subject:
    if not isinstance(workload, Peak) or threads != 1:
        raise Unavailable(f"the peak is of one thread in registers, not of {workload} on {threads}")
    usable = [name for name, flag in NEEDS.items() if flag in machine_flags()]
    chosen = usable[0] if level == NATIVE and usable else level
    if chosen not in usable:
        raise Unavailable(f"no peak of level {level!r} on this machine; there are {usable}")
    function = getattr(_library(), f"peak_{chosen}")
    function.argtypes, function.restype = [ctypes.c_int64], ctypes.c_int64
    steps = workload.macs // (ACCUMULATORS * LANES[chosen])
    about = {"instructions": chosen, "compiler": _compiler_version()}
    return Subject(timed_calls(lambda: function(steps)), lambda: 0.0, 0.0, about)


def _compiler() -> str:
    return os.environ.get("CXX", "c++")


def _compiler_version() -> str:
    told = subprocess.run([_compiler(), "--version"], check=True, capture_output=True, text=True).stdout
    return told.splitlines()[0]


def _library() -> ctypes.CDLL:
    source = Path(__file__).with_name("peak.cpp")
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "peak.so"
        subprocess.run([_compiler(), "-std=c++20", "-O2", "-shared", "-fPIC", "-o", library, source], check=True)
        return ctypes.CDLL(str(library))
