"""The runtime against the same network simulated in torch, on the test images.

    python benchmarks/agreement.py [NETWORK ...] [--images N] [--isa LEVEL] [--json FILE]

Every encoding as a uniform policy, and random mixed policies. Bars: top-1 equal on 99.9 % of the images (at most one miss
of 500); float32 artifacts within 1e-4 of torch's largest output.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from networks import Case, cases, simulated

from bitplan.encodings import default_menu, encoding_of
from bitplan.evaluate import outputs_of, runtime_run
from bitplan.kernels import Runtime
from bitplan.kernels.artifact import pack_artifact
from bitplan.policies.realise import realise
from bitplan.simulate import Simulator
from bitplan.variant import FLOAT32, Variant

RANDOM_POLICIES = 3


def policies(case: Case) -> dict[str, dict[str, Variant]]:
    """Uniform policies of every variant, and seeded random ones."""
    menu = default_menu()
    layers = case.network.layers

    def usable(variant: Variant, index: int) -> Variant:
        shape = case.network.weight_shape(layers[index])
        return variant if encoding_of(variant).supports(shape) else FLOAT32

    found = {str(v): {n.name: usable(v, i) for i, n in enumerate(layers)} for v in menu}
    rng = np.random.default_rng(0)
    for seed in range(RANDOM_POLICIES):
        picks = rng.integers(len(menu), size=len(layers))
        found[f"random {seed}"] = {n.name: usable(menu[picks[i]], i) for i, n in enumerate(layers)}
    return found


def compare(case: Case, images: int, isa: str | None) -> list[dict[str, object]]:
    simulator, first = Simulator(case.network, case.weights), case.network.outputs[0]
    test = case.test[:images]
    rows = []
    for name, variants in policies(case).items():
        carried = realise(case.network, case.weights, case.calibration[:128], variants)
        data = pack_artifact(case.network, case.weights, carried.layers, carried.ranges, planned_batch=case.batch)
        runtime = Runtime.from_bytes(data, threads=1, isa=isa)
        ours = outputs_of(runtime_run(runtime), test, case.batch)[first]
        theirs = simulated(simulator, test, case.batch, carried.layers, carried.ranges)
        differing = int((ours.argmax(1) != theirs.argmax(1)).sum())
        error = float(np.abs(ours - theirs).max() / np.abs(theirs).max())
        rows.append({"network": case.name, "policy": name, "images": len(test), "differing": differing, "error": error})
        print(f"{case.name:20s} {name:16s} {differing:4d} of {len(test)} differ, largest error {error:.1e}", flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*")
    parser.add_argument("--images", type=int, default=6000)
    parser.add_argument("--isa")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = [row for case in cases(arguments.networks) for row in compare(case, arguments.images, arguments.isa)]
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
