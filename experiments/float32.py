"""A network through the whole pipeline with every layer float32: planned, recovered, fine-tuned, packed. Nothing may change.

    BITPLAN_TEST_DATA=... python -m experiments.float32 [NETWORK ...]

NETWORK: example, or one of benchmarks/networks.py; default: example and resnet20. The weights in the artifact are compared bit
by bit with those that were captured, and the accuracy on the test images with that of full precision. What was found is kept
in `experiments/float32.json`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.networks import cases
from bitplan.atomic_file import write_atomically
from bitplan.kernels.read_artifact import read_artifact
from experiments.main_job import ROOT, main_job

DATA = {"efficientnet_lite0": "imagenet"}
"""Of the networks that are not trained on CIFAR-10."""


def run(name: str) -> dict[str, Any]:
    folder = ROOT / "build" / f"float32-{name}"
    command = [
        "optimize",
        "--encodings",
        "float32",
        "--recovery",
        "strong",
        "--finetune",
        "1epochs",
        "--compare",
        "none",
    ]
    command += ["--budget", "1GB", "-o", str(folder)]
    if name != "example":
        command += [
            "--model",
            f"benchmarks.networks:{name}",
            "--data",
            f"benchmarks.networks:{DATA.get(name, 'cifar10')}",
        ]
    accuracy = main_job(command)["accuracy"]
    (case,) = cases([name])
    layers = read_artifact((folder / "network.bitplan").read_bytes()).layers
    same = all(
        np.array_equal(layer.values.ravel(), case.weights[f"{node}.weight"].ravel())
        and np.array_equal(layer.bias, case.weights[f"{node}.bias"])
        for node, layer in layers.items()
    )
    return {
        "network": name,
        "command": " ".join(command).replace(str(ROOT), "."),
        "layers": len(layers),
        "weights_bit_identical": same,
        "accuracy": accuracy["policy"],
        "full_precision": accuracy["full_precision"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=["example", "resnet20"])
    rows = []
    for name in parser.parse_args().networks:
        rows.append(run(name))
        print(json.dumps(rows[-1]), flush=True)
    write_atomically(Path(__file__).with_suffix(".json"), (json.dumps(rows, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
