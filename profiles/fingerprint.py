"""What a latency holds for: the machine, and the kernels that ran on it."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from bitplan import __version__

FEATURES = (
    *("sse4_1", "avx", "avx2", "fma", "f16c", "bmi2", "avx_vnni"),
    *("avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512vbmi", "avx512_vnni", "avx512_bf16", "avx512_vpopcntdq"),
    *("gfni", "amx_tile", "amx_int8", "asimd", "asimddp", "i8mm"),
)
"""The processor features that kernels can be made of, in the spelling of /proc/cpuinfo."""

IDENTITY = ("cpu", "features", "isa", "cores", "kernel_version")
"""The fields that have to agree for a latency to hold; the others are for the record."""


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """cpu: model, family and stepping; features: those of FEATURES it has; isa: level of the kernels in use; cores:
    processors of the machine; kernel_version: of the compiled kernels; governor: frequency policy ('' if unknown)."""

    cpu: str
    features: tuple[str, ...]
    isa: str
    cores: int
    kernel_version: str
    governor: str = ""
    python: str = ""
    bitplan: str = ""

    def differences(self, other: Fingerprint, mine: str = "here", theirs: str = "there") -> list[str]:
        """What keeps latencies of one from holding on the other, in words; empty if nothing does. `mine` and `theirs`:
        what the two are called."""
        pairs = ((name, getattr(self, name), getattr(other, name)) for name in IDENTITY)
        return [f"{name} is {a!r} {mine} and {b!r} {theirs}" for name, a, b in pairs if a != b]

    def matches(self, other: Fingerprint) -> bool:
        return not self.differences(other)

    @property
    def hash(self) -> str:
        """16 hexadecimal digits of the SHA-256 of the identity."""
        identity = {name: getattr(self, name) for name in IDENTITY}
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"features": list(self.features)}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Fingerprint:
        """Raises ValueError where a field is missing, unknown or of the wrong type."""
        expected = {
            f.name: int if f.name == "cores" else list if f.name == "features" else str for f in fields(Fingerprint)
        }
        if data.keys() != expected.keys():
            raise ValueError(f"a fingerprint has the fields {', '.join(expected)}, not {', '.join(data)}")
        if wrong := [name for name, kind in expected.items() if not isinstance(data[name], kind)]:
            raise ValueError(f"{wrong[0]} of a fingerprint is {data[wrong[0]]!r}")
        return Fingerprint(**{**data, "features": tuple(map(str, data["features"]))})


def this_machine(isa: str | None = None) -> Fingerprint:
    """The fingerprint of this machine with the kernels of an ISA level, by default the one that runtimes of this
    process use (the best, or what BITPLAN_ISA names)."""
    from bitplan.kernels.compiled import (
        _runtime,
    )  # here, because profiles of other machines are read where it is not built

    info = _first_processor()
    model = info.get("model name") or platform.processor() or platform.machine()
    detail = [f"{name} {info[name]}" for name in ("cpu family", "model", "stepping") if name in info]
    flags = set((info.get("flags") or info.get("Features") or "").split())
    return Fingerprint(
        cpu=f"{model} ({', '.join(detail)})" if detail else model,
        features=tuple(feature for feature in FEATURES if feature in flags),
        isa=isa or _runtime.active_isa(),
        cores=os.cpu_count() or 1,
        kernel_version=_runtime.kernel_version,
        governor=_read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").strip(),
        python=platform.python_version(),
        bitplan=__version__,
    )


def _first_processor() -> dict[str, str]:
    """The fields of the first processor in /proc/cpuinfo; empty where there is no such file."""
    first, _, _ = _read("/proc/cpuinfo").partition("\n\n")
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
