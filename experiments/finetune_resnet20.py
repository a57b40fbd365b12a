"""ResNet-20 on CIFAR-10 within 1.0, 0.8 or 0.6 bits per parameter of the whole file, planned and fine-tuned.

    BITPLAN_TEST_DATA=DIR python -m experiments.finetune_resnet20 --bits 1.0 [--epochs 20] [--minutes 150] [--seed 0]
        [--budget BYTES] [--option NAME=VALUE ...]

The plan is the main job's, without a latency target, on 512 training images; training is on all training images but
1,000 that are held back; the 6,000 test images are measured once, behind everything. A run that was interrupted goes on
from `build/finetune-resnet20-.../`, and so does one whose minutes were over. `--train N` and few `--epochs` are for a
trial. Where no policy of the menu is that small, the smallest file that can be reached is said. What was measured is
added to `experiments/finetune_resnet20.json`, in the place of an earlier run of the same bits, epochs, images and seed.
"""

from __future__ import annotations

import argparse
import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.networks import cifar10 as calibration_and_test
from benchmarks.networks import images
from bitplan.atomic_file import write_atomically
from experiments.calibration_only import figures_of_result
from experiments.main_job import ROOT, main_job

PARAMETERS = 269_722
RATES = (0.25, 0.35, 0.5, 0.65, 0.8, 1.0)
MENU = ",".join(["int8,int4,coded", *(f"codedternary:bits={rate:g}" for rate in RATES)])
"""Entropy-coded ternary weights below the rates of the default menu too."""
RESULTS = Path(__file__).with_suffix(".json")


def training() -> dict[str, Any]:
    """The training images, or the first BITPLAN_TRAIN of them."""
    parts = [images(f"cifar10/train_{number}.npz") for number in range(5)]
    count = int(os.environ.get("BITPLAN_TRAIN", "0")) or sum(len(x) for x, _ in parts)
    x, y = (np.concatenate([part[index] for part in parts])[:count] for index in (0, 1))
    return {"x": x, "y": y}


def data() -> dict[str, Any]:
    """512 training images to plan with, the 6,000 test images."""
    return calibration_and_test()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bits", type=float, required=True)
    parser.add_argument("--budget", type=int, help="bytes of the file, fewer than those of --bits")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--minutes", type=float, default=150)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--train", type=int, default=0)
    parser.add_argument("--encodings", default=MENU)
    parser.add_argument("--option", action="append", default=[], help="of fine-tuning: name=value")
    arguments = parser.parse_args()
    folder = ROOT / "build" / f"finetune-resnet20-{arguments.bits:g}-{arguments.seed}-{arguments.train}"
    most = math.floor(arguments.bits * PARAMETERS / 8)
    budget = min(most, arguments.budget or most)
    command = ["optimize", "--seed", str(arguments.seed), "-o", str(folder)]
    command += ["--model", "benchmarks.networks:resnet20", "--data", "experiments.finetune_resnet20:data"]
    command += ["--train-data", "experiments.finetune_resnet20:training", "--budget", f"{budget}B", "--compare", "none"]
    command += ["--encodings", arguments.encodings, "--finetune", f"{arguments.epochs}epochs"]
    command += ["--finetune-time", f"{arguments.minutes:g}min", "--rounds", "0"]
    for option in ("bf16=true", "patience=0", *arguments.option):
        command += ["--finetune-option", option]
    print(" ".join(command), flush=True)
    result = main_job(command, {"BITPLAN_TRAIN": str(arguments.train)})
    asked = {"bits": arguments.bits, "epochs": arguments.epochs, "train": arguments.train, "seed": arguments.seed}
    row = asked | {"command": " ".join(command).replace(str(ROOT), ".")} | figures_of_result(result)
    row |= {"finetuning": result["finetuning"]}
    earlier = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    rows = [other for other in earlier if any(other[key] != value for key, value in asked.items())]
    write_atomically(RESULTS, (json.dumps([*rows, row], indent=1) + "\n").encode())
    print(f"{row['file_bytes']:,} B: drop {row['drop_points']:.2f} points (s.e. {row['standard_error_points']:.2f})")


if __name__ == "__main__":
    main()
