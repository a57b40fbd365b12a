"""Accuracy of ResNet-20 on CIFAR-10 against the bytes of the file, from what the other experiments here have measured.

    python experiments/accuracy_against_bytes.py [--output docs/accuracy-against-bytes.png]

Reads `calibration_only.json`, `finetune_resnet20.json` and `finetune_rules.json` beside it; all accuracies are of the same
6,000 test images. Needs matplotlib (`pip install 'bitplan[bench]'`).
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

FOLDER = Path(__file__).resolve().parent
FULL_BYTES = 4 * 269_034
"""Of the weights and biases as float32."""

COLOURS = 10
"""Of matplotlib's cycle: later series have another marker."""

Points = list[tuple[float, float]]
"""(kB of the file, accuracy in percent)."""


def rows(name: str) -> list[dict[str, Any]]:
    path = FOLDER / name
    return json.loads(path.read_text()) if path.exists() else []


def series() -> dict[str, Points]:
    """The points by method; of the trainings of one budget the best."""
    found: dict[str, Points] = {}
    for row in rows("calibration_only.json"):
        if row["case"].startswith("resnet20"):
            found.setdefault("planned, calibration only", []).append((row["file_bytes"], row["accuracy"]))
    best: dict[float, dict[str, Any]] = {}
    for row in rows("finetune_resnet20.json"):
        if not row["train"] and row["accuracy"] > best.get(row["bits"], {"accuracy": 0})["accuracy"]:
            best[row["bits"]] = row
    for row in best.values():
        size, before = row["file_bytes"], row["finetuning"]["recovered"]["accuracy"]
        found.setdefault("planned, calibration only", []).append((size, before))
        found.setdefault("planned, fine-tuned", []).append((size, row["accuracy"]))
    for row in rows("finetune_rules.json"):
        variant = re.sub(r":(kept|bits)=\S+| (learning_rate|zeros)=\S+", "", row["title"])
        size = row["file_bytes"]
        found.setdefault("uniform, calibration only", []).append((size, row["recovered"]["accuracy"]))
        found.setdefault(f"{variant}, {row['epochs']} epochs", []).append((size, row["trained"]["accuracy"]))
    return {name: sorted((size / 1e3, 100 * accuracy) for size, accuracy in points) for name, points in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=FOLDER.parent / "docs" / "accuracy-against-bytes.png")
    arguments = parser.parse_args()
    full = 100 * rows("finetune_resnet20.json")[-1]["full_precision"]
    figure, axes = pyplot.subplots(figsize=(8, 5), layout="constrained")
    for number, (name, points) in enumerate(series().items()):
        line = "-" if len(points) > 1 and not name.startswith("uniform") else "none"
        marker = "o" if number < COLOURS else "s"
        axes.plot(*zip(*points, strict=True), marker=marker, linestyle=line, label=name)
    axes.axhline(full, color="black", linewidth=1, label=f"full precision, {full:.2f} % ({FULL_BYTES / 1e3:,.0f} kB)")
    axes.set_xscale("log")
    axes.set_xticks([20, 30, 40, 50, 60, 70, 80, 100], ["20", "30", "40", "50", "60", "70", "80", "100"])
    axes.minorticks_off()
    axes.set_xlabel("kB of the file")
    axes.set_ylabel("accuracy on 6,000 test images, %")
    axes.legend(fontsize="x-small", loc="lower right")
    figure.savefig(arguments.output, dpi=110)


if __name__ == "__main__":
    main()
