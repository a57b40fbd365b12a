"""ResNet-20 on CIFAR-10 in a small file: planned, recovered, fine-tuned, replanned, and fine-tuned again.

    BITPLAN_TEST_DATA=DIR python -m experiments.replan_resnet20 [--budget 50kB] [--epochs 6] [--train 10000]

The plan is the main job's on 512 training images without a latency target; training is on the first `--train` training
images by distillation; the 6,000 test images are measured only. `optimize replan` is called on what came of that: with the
same 512 images, with 1,000 images that training has not seen, and with those and as many epochs again. What these epochs are
worth without replanning is measured by training the first plan for twice as many in one go. An interrupted run goes on from
`build/replan-resnet20-.../`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.networks import images
from bitplan.atomic_file import write_atomically
from experiments.finetune_resnet20 import data

ROOT = Path(__file__).resolve().parent.parent
UNSEEN = 1000
PROGRAM = [sys.executable, "-c", "from bitplan.cli import main; main()"]
ENCODINGS = "int8,int4,int3,int2,ternary,binary"
OPTIONS = ("bf16=true", "patience=0", "learning_rate=0.0002")


def unseen() -> dict[str, Any]:
    """Training images that the first ones do not hold in the place of the 512, the same test images."""
    x, y = images("cifar10/train_4.npz")
    return data() | {"calibration_x": x[:UNSEEN], "calibration_y": y[:UNSEEN]}


def run(name: str, arguments: list[str], folder: Path, train: int) -> dict[str, Any]:
    """The result of a command, which is printed and repeated beside what it says. Raises SystemExit where it fails."""
    command = [*arguments, "-o", str(folder / name), "--json"]
    print(f"$ optimize {' '.join(command)}", flush=True)
    begin = time.monotonic()
    environment = os.environ | {"BITPLAN_TRAIN": str(train)}
    done = subprocess.run(
        [*PROGRAM, *command], stdout=subprocess.PIPE, text=True, check=False, cwd=ROOT, env=environment
    )
    if done.returncode not in (0, 4):
        raise SystemExit(f"{name}: exit code {done.returncode}")
    found: dict[str, Any] = json.loads(done.stdout)
    found["seconds"] = time.monotonic() - begin
    print(f"({found['seconds']:.0f} s)", flush=True)
    return found


def row(name: str, stage: dict[str, Any]) -> str:
    def shown(key: str, form: str, factor: float = 1.0) -> str:
        return "" if stage.get(key) is None else form.format(factor * stage[key])

    cells = [name, shown("file_bytes", "{:,.0f}"), shown("latency_ms", "{:.3f}"), shown("loss", "{:.4f}")]
    cells += [shown("agreement", "{:.2f} %", 100), shown("accuracy", "{:.2f} %", 100)]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", default="50kB")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--train", type=int, default=10_000)
    parser.add_argument("--json", type=Path, default=ROOT / "experiments" / "replan_resnet20.json")
    arguments = parser.parse_args()
    folder = Path("build") / f"replan-resnet20-{arguments.budget}-{arguments.epochs}-{arguments.train}"
    subject = ["--model", "benchmarks.networks:resnet20", "--data", "experiments.finetune_resnet20:data"]
    subject += ["--compare", "none"]
    training = ["--train-data", "experiments.finetune_resnet20:training"]
    for option in OPTIONS:
        training += ["--finetune-option", option]
    epochs, twice = f"{arguments.epochs}epochs", f"{2 * arguments.epochs}epochs"
    first = [*subject, "--budget", arguments.budget, "--encodings", ENCODINGS, "--rounds", "0", "--link-policies", "0"]
    results = {"first": run("first", [*first, *training, "--finetune", epochs], folder, arguments.train)}
    earlier = str(folder / "first")
    results["replanned"] = run("replanned", ["replan", earlier], folder, arguments.train)
    others = ["replan", earlier, "--data", "experiments.replan_resnet20:unseen", "--calibration-size", str(UNSEEN)]
    results["unseen"] = run("unseen", others, folder, arguments.train)
    results["again"] = run("again", [*others, *training, "--finetune", epochs], folder, arguments.train)
    longer = ["realise", f"{earlier}/policy.json", *subject, *training, "--finetune", twice]
    results["longer"] = run("longer", longer, folder, arguments.train)
    write_atomically(arguments.json, (json.dumps(results, indent=1) + "\n").encode())
    print("| | file | ms | KL | agreement | accuracy |\n|---|---:|---:|---:|---:|---:|")
    for name, stage in results["again"]["replanning"]["stages"].items():
        if name != "replanned":
            print(row(name, stage))
    print(row(f"first plan, {twice}", results["longer"]["finetuning"]["finetuned"]))
    for name in ("replanned", "unseen", "again"):
        told = results[name]["replanning"]
        print(row(f"replanned ({name}), kept as it was: {told['kept']}", told["stages"].get("replanned", {})))
        print(f"held back: {told.get('held_back')}")


if __name__ == "__main__":
    main()
