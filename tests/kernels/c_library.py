"""The library for C: built, installed into a folder, and called through ctypes."""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
import subprocess
import sys
from ctypes import POINTER, c_char_p, c_float, c_size_t, c_uint8, c_uint32, c_void_p
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SANITIZED_BUILD = os.environ.get("BITPLAN_SANITIZED_BUILD")
"""Under `make sanitize` the build folder of the extension, which has most of the library already."""
ENVIRONMENT = {name: value for name, value in os.environ.items() if name not in ("LD_PRELOAD", "ASAN_OPTIONS")}
"""Of the programs called: compilers run as ever, and what they make also looks for leaks."""
PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])


def tool(name: str) -> str:
    """Where a program is; the test is skipped where it is nowhere."""
    found = shutil.which(name, path=PATH)
    if found is None:
        pytest.skip(f"needs {name}")
    return found


def call(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command], check=False, capture_output=True, text=True, timeout=1800, env=ENVIRONMENT
    )


def run(*command: str | Path) -> str:
    result = call(*command)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def cmake(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return call(tool("cmake"), *arguments)


def configure(source: Path, build: Path, *options: str) -> subprocess.CompletedProcess[str]:
    ninja = shutil.which("ninja", path=PATH)
    generator = ["-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}"] if ninja else []
    return cmake("-S", source, "-B", build, *generator, *options)


def succeed(result: subprocess.CompletedProcess[str]) -> None:
    assert result.returncode == 0, result.stdout + result.stderr


@dataclass(frozen=True)
class Installed:
    prefix: Path
    shared: bool

    def find(self, name: str) -> Path:
        (found,) = self.prefix.rglob(name)
        return found


def install(prefix: Path, shared: bool) -> Installed:
    """Both kinds of the library come from one build folder, which is kept: only what changed is compiled again."""
    tool("cmake")
    build = ROOT / (SANITIZED_BUILD or "build/library")
    build.mkdir(parents=True, exist_ok=True)
    with open(build / "lock", "w") as lock:  # other test processes build here too
        fcntl.flock(lock, fcntl.LOCK_EX)
        sanitize = bool(SANITIZED_BUILD)
        options = {"BITPLAN_PYTHON": False, "BITPLAN_SANITIZE": sanitize, "BITPLAN_WERROR": not sanitize}
        options["BUILD_SHARED_LIBS"] = shared
        succeed(configure(ROOT, build, *(f"-D{name}={'ON' if value else 'OFF'}" for name, value in options.items())))
        succeed(cmake("--build", build, "--parallel", "2"))
        succeed(cmake("--install", build, "--prefix", prefix))
    return Installed(prefix, shared)


class Options(ctypes.Structure):
    _fields_ = (("size", c_size_t), ("threads", c_size_t), ("isa", c_char_p))


class Port(ctypes.Structure):
    _fields_ = (("name", c_char_p), ("shape", POINTER(c_uint32)), ("rank", c_size_t), ("elements", c_size_t))


class Info(ctypes.Structure):
    _fields_ = (
        ("inputs", c_size_t),
        ("outputs", c_size_t),
        ("planned_batch", c_size_t),
        ("threads", c_size_t),
        ("isa", c_char_p),
        ("weight_bytes", c_size_t),
        ("arena_bytes", c_size_t),
        ("policy_hash", POINTER(c_uint8)),
        ("channels", c_size_t),
        ("mean", POINTER(c_float)),
        ("std", POINTER(c_float)),
        ("resize", c_uint32),
        ("crop", c_uint32),
    )


class InputArray(ctypes.Structure):
    _fields_ = (("data", c_void_p), ("bytes", c_size_t), ("type", c_uint32))


class OutputArray(ctypes.Structure):
    _fields_ = (("data", c_void_p), ("bytes", c_size_t))


def open_library(path: Path) -> ctypes.CDLL:
    """The shared library with the types that bitplan.h declares."""
    library = ctypes.CDLL(str(path))
    runtime, status = c_void_p, ctypes.c_int
    declarations = {
        "api_version": (c_uint32, []),
        "last_error": (c_char_p, []),
        "load_file": (status, [c_char_p, POINTER(Options), POINTER(runtime)]),
        "load_memory": (status, [c_char_p, c_size_t, POINTER(Options), POINTER(runtime)]),
        "free": (None, [runtime]),
        "describe": (POINTER(Info), [runtime]),
        "input_port": (POINTER(Port), [runtime, c_size_t]),
        "output_port": (POINTER(Port), [runtime, c_size_t]),
        "run": (status, [runtime, c_size_t, POINTER(InputArray), c_size_t, POINTER(OutputArray), c_size_t]),
    }
    for name, (result, arguments) in declarations.items():
        function = getattr(library, f"bitplan_{name}")
        function.restype, function.argtypes = result, arguments
    return library
