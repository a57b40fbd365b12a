"""Entropy-coded levels: bits per weight against the entropy, decoding speed, and error against codes of fixed length.

    python benchmarks/entropy.py [NETWORK ...] [--parts synthetic sparse networks] [--output FILE.json]

Speed is processor time of one core, so that a busy machine disturbs it less (not: not at all). Bars: 0.655 bits per weight for
independent ternary codes of which 12 % are not zero (entropy 0.649), 0.66 for such layers of trained networks, 200 MB of levels per
second.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from networks import cases
from numpy.typing import NDArray

from bitplan.encodings import encoding_of
from bitplan.encodings.level_stream import encode, lanes_for
from bitplan.kernels._runtime import decode_levels
from bitplan.variant import Variant

RATES = (
    "coded:bits=1",
    "coded:bits=1.5",
    "coded:bits=2",
    "coded:bits=3",
    "codedternary:bits=0.65",
    "codedternary:bits=1",
)
LADDER = ("binary", "ternary", "int2", "int3", "int4")
REPEATS = 9
PARTS = ("synthetic", "sparse", "networks")
Record = dict[str, Any]


def entropy(levels: NDArray[np.int8]) -> float:
    """Bits per level of order 0."""
    shares = np.unique(levels, return_counts=True)[1] / levels.size
    return float(-(shares * np.log2(shares)).sum())


def decoding_speed(data: bytes, levels: NDArray[np.int8]) -> float:
    """MB of levels per second of processor time, the best of several runs."""
    seconds = []
    for _ in range(REPEATS):
        start = time.process_time()
        decode_levels(data, *levels.shape, 127)
        seconds.append(time.process_time() - start)
    return levels.size / min(seconds) / 1e6


def synthetic() -> list[Record]:
    """A million independent ternary codes, and levels whose spread differs from row to row (coded by context)."""
    rng = np.random.default_rng(0)
    ternary = rng.choice([-1, 0, 1], (1000, 1000), p=[0.06, 0.88, 0.06]).astype(np.int8)
    spread = rng.lognormal(0, 0.4, (1000, 1))
    wide = np.rint(0.9 * rng.normal(size=(1000, 1000)) * spread).astype(np.int8)
    records = []
    for name, levels in (("ternary, 12 % not zero", ternary), ("2 bits, by context", wide)):
        data = encode(levels, 32)
        record = {"levels": name, "bits": 8 * len(data) / levels.size, "entropy": entropy(levels)}
        records.append(record | {"megabytes_per_second": decoding_speed(data, levels)})
        print(records[-1], flush=True)
    return records


def sparse_layers(name: str) -> list[Record]:
    """Ternary layers of a trained network of which 12 % are not zero, as PTQ prunes them: those largest in their channel's
    norm. Bits with everything but scales counted."""
    case = cases([name])[0]
    records: list[Record] = []
    count, bits, order_0 = 0, 0.0, 0.0
    for node in case.network.layers:
        weight = case.weights[f"{node.name}.weight"]
        rows = (weight.transpose(0, 2, 3, 1) if weight.ndim == 4 else weight).reshape(len(weight), -1)  # as in files
        rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
        kept = np.abs(rows) > np.quantile(np.abs(rows), 0.88)
        levels = np.asarray(np.sign(rows) * kept, np.int8)
        size = 8 * len(encode(levels, lanes_for(len(levels), round(0.65 * levels.size / 8))))
        count, bits, order_0 = count + levels.size, bits + size, order_0 + entropy(levels) * levels.size
        records.append(
            {"levels": node.name, "weights": levels.size, "bits": size / levels.size, "entropy": entropy(levels)}
        )
    records.append({"levels": "all layers", "weights": count, "bits": bits / count, "entropy": order_0 / count})
    print(name, records[-1], flush=True)
    return [{"network": name} | record for record in records]


def of_network(name: str) -> list[Record]:
    """By variant, over all layers: bits per weight, the order-0 entropy of its levels, the squared error relative to that of
    zeros (mean over weights)."""
    case = cases([name])[0]
    records = []
    for variant in map(Variant.parse, (*RATES, *LADDER)):
        encoding, count, bits, order_0, error = encoding_of(variant), 0, 0.0, 0.0, 0.0
        for node in case.network.layers:
            weight = case.weights[f"{node.name}.weight"]
            weight = weight.reshape(*weight.shape, 1, 1) if weight.ndim == 2 else weight
            shape = case.network.weight_shape(node)
            layer = encoding.quantise(weight, case.weights[f"{node.name}.bias"], variant, shape.groups)
            count += shape.count
            bits += 8 * (encoding.size_bytes(shape, variant) - encoding.numbers.size_bytes(shape.out_channels))
            order_0 += entropy(layer.levels) * shape.count
            error += float(((layer.weight - weight) ** 2).sum() / (weight**2).sum()) * shape.count
        found = {"network": name, "variant": str(variant), "bits": bits / count}
        records.append(found | {"order_0_entropy": order_0 / count, "relative_error": error / count})
        print(records[-1], flush=True)
    return records


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=["resnet20"])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    report: dict[str, list[Record]] = {}
    if "synthetic" in arguments.parts:
        report["synthetic"] = synthetic()
    for part, measure in (("sparse", sparse_layers), ("networks", of_network)):
        if part in arguments.parts:
            report[part] = [record for name in arguments.networks for record in measure(name)]
    if arguments.output:
        arguments.output.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
