"""What scales and biases of eight bits cost, against sixteen: the same policies carried out with both.

    BITPLAN_TEST_DATA=DIR python -m experiments.short_floats [--networks resnet20 ...] [--policies coded:bits=1.5 ...]

Every layer has the variant (int8 where it is not supported); recovery is `fast`. Columns: bytes of the file, KL to full
precision and accuracy on the test images. Results are added to `experiments/short_floats.json`, in the place of earlier ones of
the same network and policy.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.networks import Case, cases, figures_of, simulated
from bitplan.atomic_file import write_atomically
from bitplan.encodings.channel_numbers import HALVES, SHORT_FLOATS, ChannelNumbers
from bitplan.encodings.coded import Coded
from bitplan.encodings.xor import Xor
from bitplan.kernels.artifact import artifact_bytes
from bitplan.optimizer.plan import uniform_variants
from bitplan.policies.menu import menu_for
from bitplan.policies.realise import recover
from bitplan.recovery_names import PRESETS
from bitplan.simulate import Simulator
from bitplan.variant import Variant

POLICIES = ("coded:bits=5", "coded:bits=3", "coded:bits=1.5", "codedternary:bits=1", "xor:bits=1")
RESULTS = Path(__file__).with_suffix(".json")


@contextmanager
def held_as(numbers: ChannelNumbers) -> Iterator[None]:
    """Scales and biases of coded and xor layers are held so."""
    before = Coded.numbers, Xor.numbers
    Coded.numbers = Xor.numbers = numbers  # type: ignore[assignment]
    try:
        yield
    finally:
        Coded.numbers, Xor.numbers = before


def measure(case: Case, policy: str) -> dict[str, Any]:
    variants = uniform_variants(case.network, Variant.parse(policy), menu_for(case.network, encodings=[policy, "int8"]))
    assert variants
    simulator = Simulator(case.network, case.weights)
    reference = simulated(simulator, case.test, case.batch)
    row: dict[str, Any] = {"network": case.name, "policy": policy}
    for bits, numbers in ((16, HALVES), (8, SHORT_FLOATS)):
        with held_as(numbers):
            found = recover(case.network, case.weights, case.calibration, variants, PRESETS["fast"]).realisation
            size = artifact_bytes(case.network, variants)
        outputs = simulated(simulator, case.test, case.batch, found.layers, found.ranges)
        row[f"{bits} bits"] = {"file_bytes": size} | figures_of(reference, outputs, case.labels)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="*", default=["resnet20", "efficientnet_lite0"])
    parser.add_argument("--policies", nargs="*", default=POLICIES)
    arguments = parser.parse_args()
    rows = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    for case in cases(arguments.networks):
        for policy in arguments.policies:
            rows = [row for row in rows if (row["network"], row["policy"]) != (case.name, policy)]
            rows.append(measure(case, policy))
            print(json.dumps(rows[-1]), flush=True)
            write_atomically(RESULTS, (json.dumps(rows, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
