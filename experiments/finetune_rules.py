"""Training rules against one another on ResNet-20 at equal stored bytes: ternary ones, and APB against 2 bits.

    BITPLAN_TEST_DATA=DIR python -m experiments.finetune_rules [--epochs 8] [--only TEXT] [--train N]

All layers have the variant but the first and the last, which are int8. `kept=fit` keeps as many weights as fit into the
bytes of `int2`. Training begins with what `balanced` recovery made of 512 training images and is by distillation on all
training images but 1,000 that choose the epoch; the 6,000 test images are measured once, behind everything. An interrupted
row goes on from its checkpoint under `build/finetune-rules/`; finished rows are in `experiments/finetune_rules.json`, and those of
an earlier state of the rules (`trained_by`) are trained anew.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.networks import Case, cases, figures_of, simulated
from bitplan.atomic_file import write_atomically
from bitplan.encodings import encoding_of
from bitplan.kernels.artifact import artifact_bytes
from bitplan.network import Network
from bitplan.policies.realise import Realisation, recover
from bitplan.policies.realise.finetune import finetune, parse_settings
from bitplan.policies.realise.finetune.train import TRAINED_BY
from bitplan.recovery_names import PRESETS
from bitplan.simulate import Simulator
from bitplan.variant import Variant
from experiments.finetune_resnet20 import training

ROWS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("ternary", ("ternary=twn",)),
    ("ternary", ("ternary=ptq", "zeros=0.5")),
    ("int2", ()),
    ("apb:kept=fit", ()),
    ("apb4:kept=fit", ()),
    ("int2@u2", ()),
    ("apb@u2:kept=fit", ()),
    ("apb4@u2:kept=fit", ()),
    ("apb4@u2:kept=fit", ("apb_kept=count",)),
    ("ternary", ()),
    ("apb:kept=fit", ("apb_kept=count",)),
    ("apb:kept=fit", ("apb_kept=learned", "apb_alpha=exact")),
    ("apb:kept=fit", ("apb_kept=learned", "apb_alpha=published")),
    ("apb:kept=fit", ("apb_kept=learned", "apb_alpha=frozen")),
    ("ternary", ("ternary=ptq", "zeros=0.5", "weight_decay=0.0001")),
    *(
        (f"codedternary:bits={bits}", options)
        for bits in (1, 0.89, 0.69, 0.49)
        for options in (("ternary=twn",), ("ternary=ptq",), ())
    ),
)
"""The last are whole files of at most 1.1, 1.0, 0.8 and 0.6 bits per parameter."""
COMMON = ("bf16=true", "patience=0")
FOLDER = Path("build/finetune-rules")
LOG = Path(__file__).with_suffix(".json")


def variants_of(network: Network, text: str) -> dict[str, Variant]:
    """The variant for all layers but the first and the last, with `fit` replaced by the largest fraction whose bytes are no
    more than those of int2."""
    ends = (network.layers[0].name, network.layers[-1].name)
    inner = [node for node in network.layers if node.name not in ends]

    def size(variant: Variant) -> int:
        encoding = encoding_of(variant)
        return sum(encoding.size_bytes(network.weight_shape(node), variant) for node in inner)

    limit = size(Variant.parse("int2"))
    fractions = [number / 10_000 for number in range(1500, 0, -1)] if "fit" in text else [0.0]
    found = (Variant.parse(text.replace("fit", f"{fraction:g}")) for fraction in fractions)
    variant = next(variant for variant in found if "fit" not in text or size(variant) <= limit)
    return {node.name: Variant("int8") if node.name in ends else variant for node in network.layers}


def run(case: Case, data: Mapping[str, Any], text: str, options: tuple[str, ...], epochs: int) -> dict[str, Any]:
    """One row."""
    variants = variants_of(case.network, text)
    start = recover(case.network, case.weights, case.calibration, variants, PRESETS["balanced"]).realisation
    settings = parse_settings((*COMMON, *options), epochs=epochs)
    name = " ".join((text, *options)).replace(" ", "_").replace(":", "-")
    begin = time.process_time()
    found = finetune(
        case.network,
        case.weights,
        data["x"],
        variants,
        start,
        labels=data["y"],
        settings=settings,
        checkpoint=FOLDER / f"{name}-{epochs}-{len(data['x'])}.safetensors",
        on_epoch=lambda number, epoch: print(
            f"  {number}: held back loss {epoch.held_back:.4f}, accuracy {100 * (epoch.accuracy or 0):.2f} %",
            flush=True,
        ),
    )
    simulator = Simulator(case.network, case.weights)
    reference = simulated(simulator, case.test, case.batch)

    def figures(realisation: Realisation) -> dict[str, float]:
        outputs = simulated(simulator, case.test, case.batch, realisation.layers, realisation.ranges)
        return figures_of(reference, outputs, case.labels)

    return {
        "variant": str(variants[case.network.layers[1].name]),
        "options": list(options),
        "epochs": epochs,
        "images": len(data["x"]),
        "trained_by": TRAINED_BY,
        "file_bytes": artifact_bytes(case.network, variants),
        "recovered": figures(start),
        "trained": figures(found.realisation),
        "best_epoch": found.best_epoch,
        "corrected": found.corrected,
        "history": [asdict(epoch) for epoch in found.history],
        "processor_seconds": time.process_time() - begin,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--only", default="", help="rows that hold this text")
    parser.add_argument("--train", type=int, default=0, help="training images; 0: all")
    parser.add_argument("--option", action="append", default=[], help="of fine-tuning, for every row: name=value")
    arguments = parser.parse_args()
    (case,) = cases(["resnet20"])
    data = training()
    if arguments.train:
        data = {name: array[: arguments.train] for name, array in data.items()}
    FOLDER.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = json.loads(LOG.read_text()) if LOG.exists() else []
    done = [(row["title"], row["epochs"], row["images"], row.get("trained_by")) for row in rows]
    for text, given in ROWS:
        options = (*given, *arguments.option)
        title = " ".join((text, *options))
        asked = (title, arguments.epochs, len(data["x"]))
        if arguments.only not in title or (*asked, TRAINED_BY) in done:
            continue
        print(title, flush=True)
        row = {"title": title} | run(case, data, text, options, arguments.epochs)
        before, after = row["recovered"], row["trained"]
        print(
            f"{title}: {row['file_bytes']:,} B, {100 * before['accuracy']:.2f} -> {100 * after['accuracy']:.2f} % "
            f"(full precision {100 * after['full_precision']:.2f}), KL {before['kl']:.4f} -> {after['kl']:.4f}, "
            f"{row['processor_seconds']:.0f} s",
            flush=True,
        )
        rows = [other for other in rows if (other["title"], other["epochs"], other["images"]) != asked] + [row]
        write_atomically(LOG, (json.dumps(rows, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
