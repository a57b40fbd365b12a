"""What calibration images alone can keep of real networks within small files: the main job on whole networks.

    BITPLAN_TEST_DATA=... python -m experiments.calibration_only [CASE ...] [--json FILE] [-- OPTION ...]

EfficientNet-Lite0 within 2.0 MB, calibrated on one half of 500 images and measured on the other, both ways round;
ResNet-20 within 100 kB and 70 kB, calibrated on 512 training images and measured on 6,000 test images. Everything behind
`--` goes to `optimize`. Each case's folder and log are kept in --output; a rerun reuses loss profiles. Rows of other cases stay in
the file of results.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bitplan.atomic_file import write_atomically
from experiments.main_job import ROOT, main_job

NETWORKS = "benchmarks.networks"
CASES: Mapping[str, tuple[str, str, str]] = {
    "efficientnet-lite0-2MB": ("efficientnet_lite0", "imagenet", "2MB"),
    "efficientnet-lite0-2MB-other-half": ("efficientnet_lite0", "imagenet_other_half", "2MB"),
    "resnet20-100kB": ("resnet20", "cifar10", "100kB"),
    "resnet20-70kB": ("resnet20", "cifar10", "70kB"),
}
"""Network, data and byte budget of each case."""


def run(case: str, folder: Path, extra: Sequence[str]) -> dict[str, Any]:
    """One case's row. Raises SystemExit, naming the log, where the command fails."""
    network, data, budget = CASES[case]
    command = ["optimize", "--model", f"{NETWORKS}:{network}", "--data", f"{NETWORKS}:{data}", "--budget", budget]
    command += ["--compare", "none", "-o", str(folder / case), *extra]
    begin = time.monotonic()
    result = main_job(command, log=folder / f"{case}.log")
    return {
        "case": case,
        "command": " ".join([*command, "--json"]).replace(str(ROOT), "."),
        **figures_of_result(result),
        "images": result["accuracy"]["images"],
        "seconds": time.monotonic() - begin,
    }


def figures_of_result(result: Mapping[str, Any]) -> dict[str, float]:
    """Size, accuracy and distance from full precision, from what the main job's --json says."""
    accuracy = result["accuracy"]
    return {
        "file_bytes": result["file_bytes"],
        "full_precision": accuracy["full_precision"],
        "accuracy": accuracy["policy"],
        "drop_points": 100 * (accuracy["full_precision"] - accuracy["policy"]),
        "standard_error_points": 100 * accuracy["standard_error"],
        "agreement": result["agreement"],
        "kl": result["loss"]["measured"],
    }


def line(row: Mapping[str, Any]) -> str:
    cells = [
        row["case"],
        f"{row['file_bytes']:,}",
        f"{100 * row['full_precision']:.2f}",
        f"{100 * row['accuracy']:.2f}",
        f"{row['drop_points']:.2f} ({row['standard_error_points']:.2f})",
        f"{100 * row['agreement']:.2f}",
        f"{row['kl']:.4f}",
        f"{row['seconds']:.0f}",
    ]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", default=list(CASES), metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--output", type=Path, default=Path("build/experiments"))
    parser.add_argument("--json", type=Path, default=ROOT / "experiments" / "calibration_only.json")
    arguments, extra = parser.parse_known_args()
    extra = [option for option in extra if option != "--"]
    if unknown := set(arguments.cases) - set(CASES):
        parser.error(f"unknown cases {sorted(unknown)}; there are {', '.join(CASES)}")
    arguments.output.mkdir(parents=True, exist_ok=True)
    print("| case | file | full precision, % | policy, % | drop, points (s.e.) | agreement, % | KL | seconds |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    known = json.loads(arguments.json.read_text()) if arguments.json.exists() else []
    rows = {row["case"]: row for row in known}
    for case in arguments.cases:
        rows[case] = run(case, arguments.output.resolve(), extra)
        print(line(rows[case]), flush=True)
        found = [rows[name] for name in CASES if name in rows]
        write_atomically(arguments.json, (json.dumps(found, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
