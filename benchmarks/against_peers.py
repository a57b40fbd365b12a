"""Our kernels and whole networks against OpenVINO and ONNX Runtime, interleaved in one run.

    python benchmarks/against_peers.py [--only PART ...] [--isa LEVEL ...] [--threads 1 2] [--quick]

The results are written as JSON, with a plot beside them, and printed as a table (which table.py also does from the file).
Every engine runs in a process of its own, peers with the settings that make them fastest (they stand in the results).
Everything is checked against a reference before it is timed. Our kernels of each ISA level stand beside peers that see
a processor of that level (see cap_isa/). Peers come with `pip install 'bitplan[bench]'`; without them, ours is timed
alone. Trained networks need BITPLAN_TEST_DATA and are left out without it.

Parts: conv-int8 and conv-small (3x3 convolutions in 8 bits), conv-weights (fewer bits for weights), conv-bits (fewer
bits for activations too), apb (what kept weights add to binary), products (matrix products against the processor's int8
peak), linear (one row, weights from memory), networks, threads, memory.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import sys
from datetime import date
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from harness.cases import PARTS, Scope
from harness.levels import machine_flags
from harness.memory import measure_memory
from harness.run import Pool, run_case
from harness.timing import FULL, QUICK
from table import show_results

from bitplan.kernels.runtime import isa_levels
from bitplan.profiles.fingerprint import this_machine

RESULTS = Path(__file__).resolve().parent / "results"
CACHE = Path(__file__).resolve().parent.parent / "build" / "bench"
MEMORY = "memory"
PACKAGES = ("bitplan", "openvino", "onnxruntime", "onnx", "nncf", "numpy", "torch", "torchvision")


def machine_folder() -> Path:
    """Where results of this machine lie: the processor's name."""
    name = this_machine().cpu.partition("(")[0]
    return RESULTS / (re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or platform.machine())


def versions() -> dict[str, str | None]:
    """Of the packages that results depend on; None for those that are not installed."""
    found: dict[str, str | None] = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    return found


@cache
def say(text: str) -> None:
    """Tells a thing once."""
    print(text, file=sys.stderr, flush=True)


def show(record: dict[str, Any]) -> None:
    print(
        f"{record['part']:13} {record['isa']:11} {record['workload']:24} {record['engine']:12} {record['variant']:18} "
        f"{record['level']:11} x{record['threads']}  {record['low_ms']:9.4f} {record['median_ms']:9.4f} ms",
        flush=True,
    )


def main() -> None:
    levels = isa_levels()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=[*PARTS, MEMORY], default=[*PARTS, MEMORY], metavar="PART")
    parser.add_argument("--isa", nargs="+", choices=levels, default=levels, metavar="LEVEL", help=", ".join(levels))
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2], help="thread counts of the threads part")
    parser.add_argument("--quick", action="store_true", help="few rounds: a look, not a measurement")
    parser.add_argument(
        "--json", type=Path, help="results file (default: benchmarks/results/<machine>/<date>-peers.json)"
    )
    arguments = parser.parse_args()
    effort = QUICK if arguments.quick else FULL
    scope = Scope(tuple(arguments.isa), levels[0], tuple(arguments.threads))
    path: Path = arguments.json or machine_folder() / f"{date.today()}-peers.json"
    report: dict[str, Any] = {
        "date": str(date.today()),
        "command": " ".join(["python", "benchmarks/against_peers.py", *sys.argv[1:]]),
        "machine": this_machine().to_json(),
        "processor_flags": sorted(machine_flags()),
        "versions": versions(),
        "effort": {"rounds": effort.rounds, "burst_seconds": effort.seconds, "quick": arguments.quick},
        "records": [],
        "memory": [],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with Pool(CACHE) as pool:
        for part in PARTS:
            for case in PARTS[part](scope) if part in arguments.only else ():
                found = run_case(case, pool, effort, say)
                for record in found:
                    show(record)
                report["records"] += found
                write(path, report)  # after every case, so that an interruption loses one
    if MEMORY in arguments.only:
        report["memory"] = measure_memory(CACHE, say)
        write(path, report)
    say(f"written: {path}")
    show_results([path])


def write(path: Path, report: dict[str, Any]) -> None:
    path.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
