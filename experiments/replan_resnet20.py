"""ResNet-20 on CIFAR-10 in a small file: planned, recovered, fine-tuned, replanned, and fine-tuned again.

    BITPLAN_TEST_DATA=DIR python -m experiments.replan_resnet20 [--budget 50kB] [--epochs 6] [--again 3] [--train 10000]

The plan is the main job's on 512 training images without a latency target; training is on the first `--train` training
images by distillation; the 6,000 test images are measured only. `optimize replan` is called on what came of that with images
that training has not seen, without training and with `--again` epochs. What these epochs are worth without replanning is
measured beside it: the first plan trained further from the same weights for as many. An interrupted run goes on from
`build/replan-resnet20-.../`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.networks import images
from bitplan.atomic_file import write_atomically
from bitplan.earlier_run import config_of, read_earlier
from bitplan.finetuning import finetuned
from bitplan.measured import CarriedOut
from bitplan.policies.realise.pipeline import Realisation
from bitplan.progress import Reporter
from bitplan.result import Outcome
from bitplan.trained import load_trained
from experiments.finetune_resnet20 import data

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = [sys.executable, "-c", "from bitplan.cli import main; main()"]
ENCODINGS = "int8,int4,int3,int2,ternary,binary"
OPTIONS = ("bf16=true", "patience=0", "normalise=false", "learning_rate=0.0002")
GENTLE = ("bf16=true", "patience=0", "normalise=false", "learning_rate=0.00005")
"""Of the second training: few epochs at the rate of the first one end above where they began."""
UNSEEN = 800


def unseen() -> dict[str, Any]:
    """Training images that the first ones do not hold in the place of the 512, the same test images."""
    x, y = images("cifar10/train_4.npz")
    return data() | {"calibration_x": x[:UNSEEN], "calibration_y": y[:UNSEEN]}


def run(name: str, arguments: list[str], folder: Path) -> dict[str, Any]:
    """The result of a command, from the folder where it was finished before. Raises SystemExit where it fails."""
    command = [*arguments, "-o", str(folder / name), "--json"]
    print(f"$ optimize {' '.join(command)}", flush=True)
    finished = folder / f"{name}.json"
    if not finished.exists():
        begin = time.monotonic()
        done = subprocess.run([*PROGRAM, *command], stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode not in (0, 4):
            raise SystemExit(f"{name}: exit code {done.returncode}")
        print(f"({time.monotonic() - begin:.0f} s)", flush=True)
        write_atomically(finished, done.stdout.encode())
    found: dict[str, Any] = json.loads(finished.read_text())
    return found


def trained_further(earlier: Path, given: dict[str, Any]) -> dict[str, Any]:
    """The stage that comes of training an earlier run's policy further, from its weights, without replanning."""
    config, reporter = config_of(earlier, given, None), Reporter()
    before, trained = read_earlier(earlier), load_trained(config, reporter)
    start = before.start(trained, config)
    outcome = Outcome("fine-tuned", len(before.artifact), None, None, None)
    realisation = Realisation(dict(start.layers), {name: dict(held) for name, held in start.ranges.items()})
    carried = CarriedOut(before.policy, before.artifact, outcome, 0, realisation)
    return dict(finetuned(trained, carried, config, reporter, None, start).stages["finetuned"])


def options(texts: Sequence[str]) -> list[str]:
    return [word for text in texts for word in ("--finetune-option", text)]


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
    parser.add_argument("--again", type=int, default=3)
    parser.add_argument("--train", type=int, default=10_000)
    parser.add_argument("--json", type=Path, default=ROOT / "experiments" / "replan_resnet20.json")
    arguments = parser.parse_args()
    os.chdir(ROOT)
    os.environ["BITPLAN_TRAIN"] = str(arguments.train)
    folder = Path("build") / f"replan-resnet20-{arguments.budget}-{arguments.epochs}-{arguments.train}"
    training = ["--train-data", "experiments.finetune_resnet20:training", *options(OPTIONS)]
    again = f"{arguments.again}epochs"
    first = ["--model", "benchmarks.networks:resnet20", "--data", "experiments.finetune_resnet20:data"]
    first += ["--compare", "none", "--budget", arguments.budget, "--encodings", ENCODINGS, "--rounds", "0"]
    first += ["--link-policies", "0", *training, "--finetune", f"{arguments.epochs}epochs"]
    run("first", first, folder)
    replan = ["replan", str(folder / "first"), "--data", "experiments.replan_resnet20:unseen"]
    replan += ["--calibration-size", str(UNSEEN)]
    replanned = run("replanned", replan, folder)["replanning"]
    trained_again = run("again", [*replan, "--finetune", again, *options(GENTLE)], folder)["replanning"]
    print(f"the first plan, trained further for {again}", flush=True)
    further = trained_further(
        folder / "first", {"finetune": again, "finetune_options": GENTLE, "output": folder / "further"}
    )
    write_atomically(
        arguments.json,
        (json.dumps({"replanned": replanned, "again": trained_again, "further": further}, indent=1) + "\n").encode(),
    )
    print("| | file | ms | KL | agreement | accuracy |\n|---|---:|---:|---:|---:|---:|")
    for name, stage in trained_again["stages"].items():
        print(row(name, stage))
    print(row("first plan trained further", further))
    for name, told in (("replanned", replanned), ("trained again", trained_again)):
        print(f"{name}: kept as it was {told['kept']}, held back {told.get('held_back')}")
        for moved in told.get("moved", []):
            print("  {layer}: {before} -> {after}, {bytes_before} -> {bytes_after} bytes".format(**moved))


if __name__ == "__main__":
    main()
