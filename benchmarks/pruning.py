"""Element-wise pruning: rules that choose the mask, and the other encodings at about the same bytes.

    python benchmarks/pruning.py [NETWORK ...] [--variants pruned:kept=0.3,...] [--rules RULES] [--calibration N]
        [--images N] [--json FILE]

Each variant is carried out as a uniform policy from calibration images alone. Ways: `rounded` (largest weights, rounded,
corrected), and the rules of policies/realise/pruning.py; for encodings that are not pruned `reconstruct`. Columns: bytes of
the artifact, KL to full precision on the fifth of the calibration images that is held back and, with --images, KL and
top-1 on test images; share of weights that are not zero; processor seconds. Choose by the held-back column.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from networks import Case, cases, figures_of, simulated

from bitplan.atomic_file import write_atomically
from bitplan.encodings import EncodedLayer, encoding_of
from bitplan.kernels.artifact import artifact_bytes
from bitplan.network import Network
from bitplan.optimizer.plan import uniform_variants
from bitplan.policies.menu import menu_for
from bitplan.policies.realise import correct, realise, reconstruct
from bitplan.policies.realise.calibrate import calibrate
from bitplan.policies.realise.distil import Distance, held_back_distance
from bitplan.policies.realise.moments import InputMoments
from bitplan.policies.realise.pruning import RULES, pruned
from bitplan.policies.realise.reconstruct import NO_GRID, aim
from bitplan.policies.realise.recover import split
from bitplan.policies.realise.rounding import Problem
from bitplan.policies.realise.subject import Recovery, Subject
from bitplan.simulate import Simulator
from bitplan.variant import F32, Variant

VARIANTS = (
    "pruned:kept=0.5,pruned:kept=0.3,pruned:kept=0.2,prunedfloat:kept=0.3,int4,int3,int2,coded:bits=3,coded:bits=2"
)
Record = dict[str, Any]


def by(rule: str) -> Recovery:
    """The step that prunes by one rule."""

    def step(subject: Subject, layer: EncodedLayer) -> EncodedLayer:
        target, curvature = aim(InputMoments.of(subject), subject.weight)
        return correct(subject, pruned(Problem(target, curvature, NO_GRID), layer, rule))

    return step


def ways(variant: Variant, rules: list[str]) -> dict[str, Recovery]:
    if not variant.encoding.startswith("pruned"):
        return {"reconstruct": reconstruct}
    return {rule: correct if rule == "rounded" else by(rule) for rule in rules}


def nonzero_share(network: Network, layers: dict[str, EncodedLayer]) -> float:
    """Of all weights."""
    counts = [np.count_nonzero(layers[node.name].weight) for node in network.layers]
    return float(sum(counts) / sum(network.weight_shape(node).count for node in network.layers))


def measure(case: Case, text: str, rules: list[str], test_images: int) -> list[Record]:
    """The rows of one variant."""
    simulator, variant = Simulator(case.network, case.weights), Variant.parse(text)
    variants = uniform_variants(case.network, variant, menu_for(case.network, encodings=[text, "int8"]))
    assert variants, f"{case.name} cannot be {text}"
    fitted, held_back = split(case.calibration)
    assert held_back is not None
    formats = [variant.activation] if variant.activation != F32 else []
    ranges = calibrate(simulator, fitted, formats, batch=case.batch)
    distance, rows = Distance(case.network, temperature=1.0), []
    for name, recovery in ways(variant, rules).items():
        begin = time.process_time()
        found = realise(case.network, case.weights, fitted, variants, ranges=ranges, recoveries=[recovery])
        seconds = time.process_time() - begin
        row: Record = {
            "network": case.name,
            "variant": text,
            "way": name,
            "bytes": artifact_bytes(case.network, variants),
            "resident": sum(
                encoding_of(variant).resident_bytes(case.network.weight_shape(n), variant) for n in case.network.layers
            ),
            "held_back_kl": held_back_distance(simulator, distance, found.layers, ranges, held_back, case.batch),
            "not_zero": nonzero_share(case.network, found.layers),
            "calibration_images": len(fitted),
            "processor_seconds": seconds,
        }
        if test_images:
            test, labels = case.test[:test_images], case.labels[:test_images]
            reference = simulated(simulator, test, case.batch)
            outputs = simulated(simulator, test, case.batch, found.layers, ranges)
            row |= figures_of(reference, outputs, labels) | {"test_images": len(test)}
        rows.append(row)
        measured = f"  KL {row['kl']:.4f}  {100 * row['accuracy']:.2f} %" if test_images else ""
        print(
            f"{case.name:18s} {text:20s} {name:14s} {row['bytes']:9d} B  held back {row['held_back_kl']:.4f}"
            f"{measured}  not zero {row['not_zero']:.3f}  {seconds:.0f} s",
            flush=True,
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*")
    parser.add_argument("--variants", default=VARIANTS)
    parser.add_argument("--rules", default=",".join(["rounded", *RULES]))
    parser.add_argument("--calibration", type=int, help="how many images at most")
    parser.add_argument("--images", type=int, default=0, help="test images; none by default")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows: list[Record] = []
    for case in cases(arguments.networks):
        for text in arguments.variants.split(","):
            rows += measure(replaced(case, arguments.calibration), text, arguments.rules.split(","), arguments.images)
            if arguments.json:
                write_atomically(arguments.json, (json.dumps(rows, indent=1) + "\n").encode())


def replaced(case: Case, calibration: int | None) -> Case:
    """The case with so many calibration images at most."""
    return replace(case, calibration=case.calibration[:calibration])


if __name__ == "__main__":
    main()
