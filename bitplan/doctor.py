"""`optimize doctor`: what this machine can do, which kernels are active, what is missing."""

from __future__ import annotations

import os
import platform
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from rich.markup import escape
from rich.table import Table

from bitplan import __version__
from bitplan.compute import BITS, BYTES, FLOATS, LOOKUP, kernels_for
from bitplan.encodings import ENCODINGS
from bitplan.packages import installed, requirements
from bitplan.variant import Variant

EXTRAS = {
    "torch": "capturing, profiling and carrying out networks",
    "onnx": "ONNX files as --model, and comparing exported ones",
    "study": "optimize study",
    "cluster": "--backend ray and dask",
}
"""The extras that commands use, and what for."""
DEVELOPERS = {
    "allocation": "comparing plans with those of other tools",
    "bench": "comparing kernels with those of other runtimes",
    "test": "the tests",
    "docs": "the documentation as a site",
    "lint": "the linters",
}
"""Those for work on bitplan itself."""

AVX2 = {FLOATS: "VFMADD", BYTES: "VPMADDUBSW", BITS: "VPSHUFB", LOOKUP: "VPSHUFB"}
AVX512 = {FLOATS: "VFMADD", BYTES: "VPDPBUSD", BITS: "VPOPCNTD", LOOKUP: "VPSHUFB"}
INSTRUCTIONS = {
    "avx2": AVX2,
    "avx2vnni": AVX2 | {BYTES: "VPDPBUSD"},
    "avx512vnni": AVX512,
    "amx": AVX512 | {BYTES: "TDPBUSD"},
}
"""By level and kernel: the instruction that does most of the work; the portable level leaves that to the compiler."""


def examine() -> dict[str, Any]:
    """Findings by name; `missing` lists what limits the user, each with its remedy."""
    findings: dict[str, Any] = {
        "bitplan": __version__,
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "packages": {name: installed(name) for name, extras in requirements().items() if not extras},
        "extras": extras(),
    }
    missing = [
        f"{', '.join(found['missing'])}: for {found['for']}: pip install 'bitplan[{name}]'"
        for name, found in findings["extras"].items()
        if found["missing"] and name not in DEVELOPERS
    ]
    try:
        from bitplan.kernels.compiled import _runtime
        from bitplan.profiles.fingerprint import this_machine
        from bitplan.profiles.library import default_path

        machine = this_machine()
        path = default_path(machine)
        findings |= {
            "cpu": machine.cpu,
            "features": list(machine.features),
            "isa_active": _runtime.active_isa(),
            "isa_available": _runtime.isa_levels(),
            "isa_known": _runtime.all_isas(),
            "isa_lacks": lacking_features(_runtime.level_features()),
            "kernel_version": machine.kernel_version,
            "encodings": [name for _, name in _runtime.encodings()],
            "kernels": active_kernels(_runtime.active_isa()),
            "device_profile": str(path) if path.exists() else None,
        }
        if not path.exists():
            missing.append("device profile: none for this machine yet; the first `optimize` measures one")
    except ImportError as error:
        missing.append(f"runtime: the compiled module cannot be loaded ({error}); reinstall bitplan")
    return findings | {"missing": missing}


def table(findings: dict[str, Any]) -> Table:
    """The findings for people."""
    shown = Table("what", "finding", title="bitplan doctor", show_lines=False)
    for name, value in findings.items():
        if name == "isa_lacks":
            lines = (f"{level} needs {', '.join(features)}" for level, features in value.items())
            value = escape("\n".join(lines) or "nothing")
        elif name == "extras":
            value = "\n".join(_extra_text(extra, found) for extra, found in value.items())
        elif isinstance(value, dict):
            separator = "\n" if name == "kernels" else ", "
            value = separator.join(
                f"{escape(key)} {escape(found) if found else '[red]missing[/]'}" for key, found in value.items()
            )
        elif isinstance(value, list):
            value = escape(("\n" if name == "missing" else ", ").join(map(str, value)) or "nothing")
        else:
            value = "-" if value is None else escape(str(value))
        shown.add_row(escape(name.replace("_", " ")), value)
    return shown


def lacking_features(levels: Mapping[str, Mapping[str, bool]]) -> dict[str, list[str]]:
    """By level that this machine cannot run: the processor features that it lacks, of those that the level needs. One
    whose registers the operating system does not save counts as lacking."""
    lacks = {level: [name for name, there in needs.items() if not there] for level, needs in levels.items()}
    return {level: features for level, features in lacks.items() if features}


def active_kernels(isa: str) -> dict[str, str]:
    """By encoding and activation format (`binary@u2`): the kernels that can run it at this level, the default first, as
    `bits (VPOPCNTD), lookup (VPSHUFB)`. Formats with the same kernels share an entry: `binary@u4,u2,u1`."""
    instructions = INSTRUCTIONS.get(isa, {})

    def named(kernel: str) -> str:
        return f"{kernel} ({instructions[kernel]})" if kernel in instructions else kernel

    found: dict[str, str] = {}
    for encoding in ENCODINGS:
        forms: dict[str, list[str]] = {}
        for form in encoding.activations:
            kernels = ", ".join(map(named, kernels_for(Variant(encoding.name, form))))
            forms.setdefault(kernels, []).append(form)
        found |= {f"{encoding.name}@{','.join(together)}": kernels for kernels, together in forms.items()}
    return found


def extras() -> dict[str, Any]:
    """By extra: what it is `for`, and which of its packages are `installed` (with their version) and `missing`."""
    brought: dict[str, list[str]] = defaultdict(list)
    for package, names in requirements().items():
        for name in names:
            brought[name].append(package)
    purposes = EXTRAS | DEVELOPERS
    return {
        name: {
            "for": purposes.get(name, name),
            "installed": {p: version for p in packages if (version := installed(p))},
            "missing": [p for p in packages if installed(p) is None],
        }
        for name, packages in sorted(brought.items(), key=lambda item: (item[0] in DEVELOPERS, item[0]))
    }


def _extra_text(name: str, found: Mapping[str, Any]) -> str:
    there = ", ".join(f"{package} {version}" for package, version in found["installed"].items())
    lacking = f"[red]missing: {escape(', '.join(found['missing']))}[/]" if found["missing"] else ""
    return f"{escape(name)}, for {escape(found['for'])}: " + "; ".join(filter(None, (escape(there), lacking)))
