"""Predicted file bytes against the bytes on disk, for random policies.

python benchmarks/sizes.py [NETWORK ...] [--policies 20]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from networks import Case, cases

from bitplan.encodings import default_menu, encoding_of
from bitplan.formats import Range
from bitplan.kernels.artifact import artifact_bytes, write_artifact
from bitplan.variant import U8


def check(case: Case, policies: int) -> None:
    rng = np.random.default_rng(0)
    menu = default_menu()
    ranges = {node.name: {U8: Range(0.05, 128)} for node in case.network}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(policies):
            layers = {}
            for node in case.network.layers:
                shape = case.network.weight_shape(node)
                usable = [v for v in menu if encoding_of(v).supports(shape)]
                variant = usable[rng.integers(len(usable))]
                weight = case.weights[f"{node.name}.weight"]
                weight = weight.reshape(*weight.shape, 1, 1) if weight.ndim == 2 else weight
                bias = case.weights[f"{node.name}.bias"]
                layers[node.name] = encoding_of(variant).quantise(weight, bias, variant, shape.groups)
            path = Path(folder) / f"{number}.bitplan"
            write_artifact(path, case.network, case.weights, layers, ranges)
            predicted = artifact_bytes(case.network, {name: layer.variant for name, layer in layers.items()})
            if predicted != path.stat().st_size:
                raise SystemExit(f"{case.name}: predicted {predicted}, the file has {path.stat().st_size} bytes")
    print(f"{case.name}: {policies} of {policies} random policies have exactly the predicted bytes", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*")
    parser.add_argument("--policies", type=int, default=20)
    arguments = parser.parse_args()
    for case in cases(arguments.networks):
        check(case, arguments.policies)


if __name__ == "__main__":
    main()
