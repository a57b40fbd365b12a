"""What each choice of fine-tuning is worth on the embedded example, trained on its 512 calibration images.

    python experiments/finetune_example.py [--epochs 8] [--only TEXT] [--log experiments/finetune_example.log]

Choices are compared by the held-back loss (T^2 KL at T = 4 on 102 of the images); test images are for the last two
columns alone. Rows are appended to the log as they are finished, and those that it holds are not trained again.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from bitplan.capture import capture
from bitplan.example import PREPROCESSING, example_data, example_module
from bitplan.policies.realise import Realisation, realise
from bitplan.policies.realise.finetune import finetune, parse_settings
from bitplan.simulate import Simulator
from bitplan.variant import Variant

VARIANTS = ("ternary", "binary", "apb:kept=0.02", "codedternary:bits=0.8", "int2", "int2@u4", "binary@u2", "binary@u1")
ROWS: tuple[tuple[str, tuple[str, ...]], ...] = (
    *((variant, ()) for variant in VARIANTS),
    *((variant, ("learning_rate=0.002",)) for variant in VARIANTS),
    *((variant, ("normalise=false",)) for variant in VARIANTS),
    *((variant, ("learning_rate=0.002", "normalise=false")) for variant in VARIANTS),
    ("ternary", ("learning_rate=0.0005",)),
    ("ternary", ("learning_rate=0.01",)),
    ("ternary", ("temperature=1",)),
    ("ternary", ("ternary=twn",)),
    ("ternary", ("ternary=ptq",)),
    ("ternary", ("augment=none",)),
    ("ternary", ("activations=float",)),
    ("ternary", ("optimiser=sgd",)),
    ("ternary", ("bf16=true",)),
    ("binary", ("binary=mean",)),
    ("apb:kept=0.02", ("apb_kept=learned",)),
    ("apb:kept=0.02", ("apb_kept=learned", "apb_alpha=published")),
    ("apb:kept=0.02", ("apb_kept=learned", "apb_alpha=frozen")),
)
"""Defaults first; every difference from them."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--only", default="", help="rows that hold this text")
    parser.add_argument("--log", type=Path, default=Path(__file__).with_suffix(".log"))
    arguments = parser.parse_args()
    data = example_data()
    network, weights = capture(example_module(), torch.zeros(2, *data.shape), preprocessing=PREPROCESSING)
    simulator, name = Simulator(network, weights), network.outputs[0]

    def accuracy(realisation: Realisation) -> float:
        parts = [
            simulator.outputs(data.test_x[i : i + 200], realisation.layers, realisation.ranges)[name].argmax(1)
            for i in range(0, len(data.test_x), 200)
        ]
        return float((np.concatenate([part.numpy() for part in parts]) == data.test_y).mean())

    done = arguments.log.read_text() if arguments.log.exists() else ""
    for variant, options in ROWS:
        title = " ".join((variant, f"epochs={arguments.epochs}", *options))
        if arguments.only not in title or f"| {title} |" in done:
            continue
        variants = {node.name: Variant.parse(variant) for node in network.layers}
        start = realise(network, weights, data.calibration_x, variants)
        settings = parse_settings(options, epochs=arguments.epochs)
        began = time.process_time()
        found = finetune(
            network, weights, data.calibration_x, variants, start, labels=data.calibration_y, settings=settings
        )
        seconds = time.process_time() - began
        held_back = f"{found.history[0].held_back:.4f} -> {found.best.held_back:.4f}"
        tests = f"{100 * accuracy(start):.2f} -> {100 * accuracy(found.realisation):.2f} %"
        row = f"| {title} | {held_back} | {found.best_epoch} | {tests} | {seconds:.0f} |"
        print(row, flush=True)
        with arguments.log.open("a") as log:
            log.write(row + "\n")


if __name__ == "__main__":
    main()
