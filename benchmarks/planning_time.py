"""How long `optimize plan` takes from stored profiles, from the start of the process to the certified policy.

    python benchmarks/planning_time.py [--layers 60] [--variants 12] [--runs 5] [--output DIR] [--json FILE]

A network of bottleneck blocks; its steps are timed once, in --output, with every variant and kernel; losses are
made up (more for fewer bits, different from layer to layer), since a solver's time does not depend on where they came
from. Then the command runs as a user runs it, in a process in which torch cannot be imported, for several pairs of
targets. Bar: 3 s to a gap of at most 1 %.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from against_peers import machine_folder

from bitplan.atomic_file import write_atomically
from bitplan.encodings import encoding_of
from bitplan.network import RELU, Add, Conv2d, Input, Linear, Mean, Network, Node
from bitplan.network_file import network_to_json
from bitplan.policies.menu import Menu, menu_for
from bitplan.profiles.device import DeviceProfile
from bitplan.profiles.fingerprint import this_machine
from bitplan.profiles.loss import HASHES, LossProfile
from bitplan.profiles.measure_latency import measure

BAR_SECONDS, BAR_GAP = 3.0, 0.01
ENCODINGS = ("int8", "int4", "int3", "int2", "ternary", "binary", "int8@u4", "int4@u4", "int3@u4", "int2@u4")
ENCODINGS += ("ternary@u4", "binary@u4", "int4@u2", "int2@u2", "ternary@u2", "binary@u2")
IMAGES = 64
"""Images that losses are made up for."""
TARGETS = ((0.2, 0.6), (0.4, 0.5), (0.6, 0.4), (0.5, 1.0), (1.0, 0.4))
"""How far the limits of bytes and latency lie from the smallest and fastest policies to the most accurate one."""
WITHOUT_TORCH = "import sys; sys.modules['torch'] = None; from bitplan.cli import main; main()"


def network_of(layers: int) -> Network:
    """A stem, bottleneck blocks of three layers each, and as many pointwise layers as are missing before the classifier."""
    nodes = [Node("image", Input(), (), (3, 112, 112))]
    _append(nodes, "stem", Conv2d((3, 3), (2, 2), (1, 1, 1, 1), activation=RELU), 64, 56)
    block = 0
    while _layers(nodes) + 3 < layers - 1:
        width, side = 16 << (block // 5), 56 >> (block // 5)
        before = nodes[-1]
        stride = before.shape[1] // side
        _append(nodes, f"narrow{block}", Conv2d((1, 1), activation=RELU), width, before.shape[1])
        _append(nodes, f"middle{block}", Conv2d((3, 3), (stride, stride), (1, 1, 1, 1), activation=RELU), width, side)
        _append(nodes, f"widen{block}", Conv2d((1, 1)), 4 * width, side)
        if before.shape == nodes[-1].shape:
            nodes.append(Node(f"add{block}", Add(RELU), (before.name, nodes[-1].name), before.shape))
        block += 1
    while _layers(nodes) < layers - 1:
        _append(nodes, f"head{_layers(nodes)}", Conv2d((1, 1), activation=RELU), 320, nodes[-1].shape[1])
    nodes.append(Node("mean", Mean(), (nodes[-1].name,), nodes[-1].shape[:1]))
    nodes.append(Node("classifier", Linear(), ("mean",), (100,)))
    return Network(tuple(nodes), ("classifier",))


def _append(nodes: list[Node], name: str, operation: Conv2d, channels: int, side: int) -> None:
    nodes.append(Node(name, operation, (nodes[-1].name,), (channels, side, side)))


def _layers(nodes: list[Node]) -> int:
    return sum(isinstance(node.op, Conv2d) for node in nodes)


def losses(network: Network, menu: Menu, seed: int = 0) -> LossProfile:
    """Made-up losses: four times more for each bit less of weights, and of activations, at a level that layers differ in."""
    random = np.random.default_rng(seed)
    increases = {}
    for node in network.layers:
        level = random.lognormal(-4, 1.5)
        shape = network.weight_shape(node)
        for variant in menu[node.name]:
            bits = 8 * encoding_of(variant).size_bytes(shape, variant) / shape.count
            activation = 4.0 ** -float(variant.activation.removeprefix("u"))
            mean = level * (4.0**-bits + 0.3 * activation) * random.lognormal(0, 0.3)
            increases[node.name, variant] = (mean * random.lognormal(0, 0.5, IMAGES)).astype(np.float32)
    return LossProfile("kl", dict.fromkeys(HASHES, "0" * 64) | {"network": network.content_hash}, increases)


def prepared(folder: Path, layers: int, count: int) -> tuple[str, ...]:
    """Fills the folder as `optimize profile` does, unless it is filled; the names of the variants."""
    names = ENCODINGS[:count]
    network = network_of(layers)
    menu = menu_for(network, encodings=names)
    folder.mkdir(parents=True, exist_ok=True)
    device = folder / "device.arrow"
    known = DeviceProfile.load(device) if device.exists() else None
    measure(network, menu, profile=known).save(device)
    losses(network, menu).save(folder / "loss.arrow")
    write_atomically(folder / "network.json", network_to_json(network).encode())
    return names


def planned(folder: Path, names: tuple[str, ...], targets: list[str]) -> tuple[float, dict[str, Any]]:
    """Seconds from start to end of the command, and what it says."""
    options = ["plan", str(folder), "--encodings", ",".join(names), "--json", *targets]
    begin = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", WITHOUT_TORCH, *options], capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - begin
    if done.returncode:
        raise SystemExit(f"optimize {' '.join(options)}: exit code {done.returncode}\n{done.stderr}")
    return seconds, json.loads(done.stdout)


def _between(share: float, least: float, most: float) -> float:
    return least + share * (most - least)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=60)
    parser.add_argument("--variants", type=int, default=12)
    parser.add_argument("--runs", type=int, default=5, help="of each pair of targets; the median counts")
    parser.add_argument("--output", type=Path, default=Path("build/planning-time"))
    parser.add_argument("--json", type=Path, help="default: benchmarks/results/<machine>/planning-time.json")
    arguments = parser.parse_args()
    if not 1 <= arguments.variants <= len(ENCODINGS):
        parser.error(f"--variants must lie between 1 and {len(ENCODINGS)}")
    folder = arguments.output / f"{arguments.layers}x{arguments.variants}"
    names = prepared(folder, arguments.layers, arguments.variants)
    _, most = planned(folder, names, [])
    smallest, fastest = (planned(folder, names, ["--objective", what])[1] for what in ("bytes", "latency"))
    rows = []
    print(
        "| bytes | latency, ms | status of the solver | gap | seconds, median | most |\n|---:|---:|---|---:|---:|---:|"
    )
    for of_bytes, of_latency in TARGETS:
        budget = round(_between(of_bytes, smallest["predicted_file_bytes"], most["predicted_file_bytes"]))
        target = _between(of_latency, fastest["predicted_latency_ms"], most["predicted_latency_ms"])
        options = ["--budget", f"{budget}B", "--target-latency", f"{target:.6f}ms"]
        runs = [planned(folder, names, options) for _ in range(arguments.runs)]
        seconds, certificate = sorted(second for second, _ in runs), runs[0][1]["solver"]
        rows.append({"budget_bytes": budget, "latency_ms": target, "seconds": seconds, "certificate": certificate})
        middle = seconds[len(seconds) // 2]
        status, gap = certificate["status"], certificate["gap"]
        print(
            f"| {budget:,} | {target:.3f} | {status} | {100 * gap:.2f} % | {middle:.2f} | {seconds[-1]:.2f} |",
            flush=True,
        )
    met = all(max(r["seconds"]) <= BAR_SECONDS and r["certificate"]["gap"] <= BAR_GAP for r in rows)
    print(f"{arguments.layers} layers x {arguments.variants} variants: bar {'met' if met else 'missed'}")
    report = {
        "layers": arguments.layers,
        "variants": names,
        "bar": {"seconds": BAR_SECONDS, "gap": BAR_GAP},
        "machine": this_machine().to_json(),
        "rows": rows,
    }
    path = arguments.json or machine_folder() / "planning-time.json"
    write_atomically(path, (json.dumps(report, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
