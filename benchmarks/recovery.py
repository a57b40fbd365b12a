"""What each step of recovery gains, on images that were not calibrated on.

    python benchmarks/recovery.py [NETWORK ...] [--policies int4,int3,...|FILE.json] [--steps STEPS]
        [--ranges mse,percentile,kl,minmax] [--images N] [--calibration N] [--json FILE]

Each policy is carried out with the first step, the first two, and so on (bitplan/recovery_names.py), from calibration
images alone. Columns: KL to full precision, accuracy and agreement with full precision; the loss on held-back calibration
images; processor seconds up to and with the step, without those of loading. `mixed` takes int8, int3, int2 and ternary in
turn. Choose settings by the held-back column, never by the test images'.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass, field, replace
from itertools import cycle
from pathlib import Path

import numpy as np
from networks import Case, cases, data_folder, figures_of, images, simulated
from numpy.typing import NDArray

from bitplan.atomic_file import write_atomically
from bitplan.optimizer.plan import uniform_variants
from bitplan.policies.menu import menu_for
from bitplan.policies.policy_file import read_policy
from bitplan.policies.realise import recover
from bitplan.recovery_names import DEFAULT_RANGES, STEPS, steps_named
from bitplan.simulate import Simulator
from bitplan.variant import Variant

POLICIES = "int4,int3,int2,ternary,binary,apb:kept=0.02,mixed"
MIXED = ("int8", "int3", "int2", "ternary")


@dataclass
class InMemory:
    """Finished layers, so that steps are not carried out again for the next column."""

    records: dict[str, NDArray[np.float32]] = field(default_factory=dict)

    def add(self, name: str, values: NDArray[np.float32]) -> None:
        self.records[name] = values.copy()


def variants_of(case: Case, policy: str) -> dict[str, Variant]:
    if policy == "mixed":
        kinds = cycle(MIXED)
        return {node.name: Variant(next(kinds)) for node in case.network.layers}
    if policy.endswith(".json"):
        return read_policy(Path(policy)).variants
    found = uniform_variants(case.network, Variant.parse(policy), menu_for(case.network, encodings=[policy, "int8"]))
    assert found, f"{case.name} cannot be {policy}"
    return found


def measure(
    case: Case, policy: str, steps: tuple[str, ...] = STEPS, ranges: str = DEFAULT_RANGES
) -> list[dict[str, object]]:
    """The rows of one policy."""
    simulator = Simulator(case.network, case.weights)
    reference = simulated(simulator, case.test, case.batch)
    variants, records, rows = variants_of(case, policy), InMemory(), []
    for count in range(len(steps) + 1):
        begin = time.process_time()
        found = recover(
            case.network, case.weights, case.calibration, variants, steps[:count], method=ranges, records=records
        )
        seconds = time.process_time() - begin
        carried = found.realisation
        outputs = simulated(simulator, case.test, case.batch, carried.layers, carried.ranges)
        rows.append(
            {
                "network": case.name,
                "policy": policy,
                "ranges": ranges,
                "step": found.gains[-1].step,
                "held_back_loss": found.gains[-1].held_back_loss,
                **figures_of(reference, outputs, case.labels),
                "calibration_images": len(case.calibration),
                "test_images": len(case.test),
                "processor_seconds": seconds,
            }
        )
        row = rows[-1]
        print(
            f"{case.name:18s} {policy:14s} {ranges:10s} {row['step']:12s} KL {row['kl']:.4f}  {100 * row['accuracy']:.2f} %  "
            f"agreement {100 * row['agreement']:.2f} %  held back {row['held_back_loss']:.4f}  {seconds:.0f} s",
            flush=True,
        )
    return rows


def chosen(case: Case, test_images: int, calibration: int | None) -> Case:
    """The case with so many test images, and calibration images of the same training images as the usual ones."""
    case = replace(case, test=case.test[:test_images], labels=case.labels[:test_images])
    if calibration is None or calibration <= len(case.calibration) or not data_folder() or case.test.shape[-1] != 32:
        return replace(case, calibration=case.calibration[:calibration])
    return replace(case, calibration=images("cifar10/train_0.npz")[0][:calibration])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*")
    parser.add_argument("--policies", default=POLICIES)
    parser.add_argument("--steps", default="strong", help="steps and presets")
    parser.add_argument("--ranges", default=DEFAULT_RANGES, help="how activation ranges are chosen; several by commas")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--calibration", type=int, help="how many images; up to 9,000 of CIFAR-10")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    steps = steps_named(arguments.steps.split(","))
    rows: list[dict[str, object]] = []
    for case in cases(arguments.networks):
        for policy in arguments.policies.split(","):
            for ranges in arguments.ranges.split(","):
                rows += measure(chosen(case, arguments.images, arguments.calibration), policy, steps, ranges)
                if arguments.json:
                    write_atomically(arguments.json, json.dumps(rows, indent=1).encode())


if __name__ == "__main__":
    main()
