"""Our allocation of bits against other allocators, on equal menus {2, 4, 8} and equal calibration images.

    python benchmarks/allocation.py [NETWORK ...] [--peers NAME ...] [--budgets BITS ...] [--peer-python FILE]

Every peer says how many bits each layer's weights get under a budget, the mean bits per weight over all layers; first
and last layers are free like all others, activations have 8 bits. OUR evaluator then carries the assignment out: exact
bytes of the artifact, KL to full precision and accuracy on test images, with the same recovery for all. Ours is planned
within the very bytes that the peer's assignment takes, so it is compared with each peer at that peer's sizes.

Peers: uniform, HAWQ-style (ours), Sony MCT, NVIDIA ModelOpt by gradients and by KL. MCT and ModelOpt come with
`pip install 'bitplan[allocation]'`; their pins are strict, so an environment of their own is best:

    python -m venv peers && peers/bin/pip install '.[torch,allocation]'
    python benchmarks/allocation.py --peer-python peers/bin/python

Those that are missing are named in the results. Results: benchmarks/results/<machine>/<date>-allocation.json, with a
plot beside it. An interrupted run goes on where it was: answers of peers and evaluations are kept in --cache, for each
network, peer and budget (remove its files after installing another version of a peer). Trained networks need
BITPLAN_TEST_DATA.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

from against_peers import machine_folder
from allocators import PEERS, Unavailable
from allocators.assignment import MENU, matched
from allocators.evaluate import Evaluator
from allocators.ours import OURS, planned
from allocators.process import ask
from allocators.report import markdown, plot
from allocators.rows import row
from networks import Case, cases

from bitplan.atomic_file import write_atomically
from bitplan.profiles.fingerprint import this_machine
from bitplan.profiles.measure_loss import profile_hashes

NETWORKS = ("resnet20", "resnet44", "efficientnet_lite0")
BUDGETS = (2.25, 2.5, 2.75, 3.0, 3.5, 4.0, 5.0, 6.0)
"""Mean bits per weight, between uniform 2 and uniform 8 bits."""


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def compare(case: Case, arguments: argparse.Namespace, report: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The rows of one network; what is said of its peers goes into the report."""
    hashes = profile_hashes(case.network, case.weights, case.loss_images)
    key = {name: hashes[name] for name in ("network", "weights", "data")} | {"images": len(case.loss_images)}
    layers = [node.name for node in case.network.layers]
    with Evaluator(case, arguments.images, arguments.cache) as evaluator:
        profiles = [(name, measured(case, arguments.cache)) for name, measured in OURS]
        report["full_precision_accuracy"][case.name] = evaluator.full_precision_accuracy()
        for peer in arguments.peers:
            try:
                answers = ask(peer, case.name, arguments.budgets, key, arguments.cache, arguments.peer_python, say)
            except Unavailable as reason:
                say(f"left out: {peer} on {case.name}: {reason}")
                report["missing"][f"{peer} on {case.name}"] = str(reason)
                continue
            report["peers"][peer] = {"about": answers.about, "versions": answers.versions}
            for budget in arguments.budgets:
                bits = matched(answers.bits[budget], layers)
                theirs = evaluator.measure(bits)
                ours = {}
                for name, profile in profiles:
                    own, certificate = planned(case, profile, theirs.bytes)
                    ours[name] = (evaluator.measure(own), own, certificate.gap)
                found = row(case.name, budget, peer, theirs, bits, ours) | {"peer_seconds": answers.seconds[budget]}
                for name, (result, _, _) in ours.items():
                    say(
                        f"{case.name} {budget:g} bits, {theirs.bytes:,} B: {peer} ({theirs.bits_per_weight:.3f} bits) KL "
                        f"{theirs.loss:.4f}, {name} ({result.bits_per_weight:.3f}) {result.loss:.4f}"
                    )
                yield found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=NETWORKS, help=f"default: {' '.join(NETWORKS)}")
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=PEERS, metavar="NAME", help=", ".join(PEERS))
    parser.add_argument("--budgets", nargs="+", type=float, default=BUDGETS, metavar="BITS", help="bits per weight")
    parser.add_argument("--images", type=int, default=2000, help="test images at most")
    parser.add_argument("--peer-python", default=sys.executable, metavar="FILE", help="an interpreter with the peers")
    parser.add_argument("--cache", type=Path, default=Path("build/allocation"))
    parser.add_argument("--json", type=Path, help="default: benchmarks/results/<machine>/<date>-allocation.json")
    parser.add_argument("--show", type=Path, metavar="FILE", help="only the tables and the plot of these results")
    arguments = parser.parse_args()
    if arguments.show:
        show(arguments.show)
        return
    if any(not MENU[0] <= budget <= MENU[-1] for budget in arguments.budgets):
        parser.error(f"budgets must lie between {MENU[0]} and {MENU[-1]} bits per weight")
    path: Path = arguments.json or machine_folder() / f"{date.today()}-allocation.json"
    report: dict[str, Any] = {
        "date": str(date.today()),
        "command": " ".join(
            ["python", "benchmarks/allocation.py", *arguments.networks, "--images", str(arguments.images)]
        ),
        "machine": this_machine().to_json(),
        "menu": MENU,
        "budgets_bits_per_weight": arguments.budgets,
        "peers": {},
        "missing": {},
        "full_precision_accuracy": {},
        "rows": [],
    }
    for name in arguments.networks:
        (case,) = cases([name])
        for found in compare(case, arguments, report):
            report["rows"].append(found)
            write_atomically(path, (json.dumps(report, indent=1) + "\n").encode())
    write_atomically(path, (json.dumps(report, indent=1) + "\n").encode())
    show(path)
    say(f"written: {path}")


def show(path: Path) -> None:
    """Prints the tables of a results file and writes the plot beside it."""
    report = json.loads(path.read_text())
    print(markdown(report["rows"]))
    for what, reason in report["missing"].items():
        print(f"missing: {what}: {reason}")
    try:
        plot(report["rows"], path.with_suffix(".png"))
    except ImportError:
        say("no plot: matplotlib is not installed; pip install 'bitplan[bench]'")


if __name__ == "__main__":
    main()
