"""Estimated against timed latency of layers whose shapes a device profile does not hold.

    BITPLAN_TEST_DATA=... python benchmarks/estimated_latency.py [NETWORK ...] [--output DIR] [--encodings NAME ...] [--json FILE]

The profile is that of `optimize profile device -o FILE` (typical layers), recorded first where --output does not have it.
Then every step of real networks is timed, with every variant and kernel, and those layers whose shape is not among the
typical ones are compared with what the profile's estimator says of them. Bar: 90 % of the estimates of 50 shapes within
15 %. On an idle machine only.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from against_peers import machine_folder
from latency_prediction import untrained
from networks import cases, data_folder

from bitplan.atomic_file import write_atomically
from bitplan.network import Network
from bitplan.policies.menu import menu_for
from bitplan.profiles.cost_terms import family
from bitplan.profiles.device import DeviceProfile
from bitplan.profiles.estimates import Estimator
from bitplan.profiles.fingerprint import this_machine
from bitplan.profiles.measure_latency import measure
from bitplan.profiles.step_shape import step_shape
from bitplan.profiles.steps import StepKey
from bitplan.profiles.survey import survey_networks

CLOSE, BAR = 0.15, 0.9
NETWORKS = ("resnet20", "efficientnet_lite0", "mobilenet_v2", "mnasnet0_5", "shufflenet_v2_x0_5", "resnet18")
TRAINED = ("resnet20", "efficientnet_lite0")
"""Come with the test data; the others are torchvision's, untrained."""


def network_named(name: str) -> Network:
    return cases([name])[0].network if name in TRAINED else untrained(name).network


def timed(networks: Sequence[Network], path: Path, encodings: Sequence[str] | None) -> DeviceProfile:
    """The profile in a file with every step of the networks; what it lacks is timed."""
    profile = DeviceProfile.load(path) if path.exists() else None
    for network in networks:
        profile = measure(network, menu_for(network, encodings=encodings), profile=profile)
        profile.save(path)
    if profile is None:
        raise ValueError("name at least one network")
    return profile


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=NETWORKS, metavar="NETWORK", help=" ".join(NETWORKS))
    parser.add_argument("--output", type=Path, default=Path("build/estimated-latency"))
    parser.add_argument("--encodings", nargs="+", help="the menu; the default one if not given")
    parser.add_argument("--json", type=Path, help="default: benchmarks/results/<machine>/estimated-latency.json")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    profile = timed(survey_networks(), arguments.output / "typical.arrow", arguments.encodings)
    known, estimator = {key.signature for key in profile.entries}, Estimator(profile)
    rows: list[dict[str, Any]] = []
    for name in arguments.networks:
        if name in TRAINED and data_folder() is None:
            print(f"{name} is left out: BITPLAN_TEST_DATA is not set")
            continue
        found = timed([network_named(name)], arguments.output / f"{name}.arrow", arguments.encodings)
        scale = profile.anchor.median / found.anchor.median
        for key, latency in sorted(found.timed.items()):
            if key.signature not in known and step_shape(key.signature).is_layer:
                rows.append({"network": name} | _row(key, latency.median * scale, estimator))
    if not rows:
        raise SystemExit("no layer of these networks is unseen")
    shapes = len({row["signature"] for row in rows})
    _say(rows, lambda row: row["network"])
    _say(rows, lambda row: f"{row['family']} {row['kernel']}")
    _say(rows, lambda row: "below 5 us" if row["timed"] < 5e-6 else "below 20 us" if row["timed"] < 2e-5 else "longer")
    _say(rows, lambda _: f"all, {shapes} shapes; bar {100 * BAR:.0f} %")
    report = {"bar": {"share": BAR, "error": CLOSE}, "machine": this_machine().to_json(), "shapes": shapes}
    path = arguments.json or machine_folder() / "estimated-latency.json"
    write_atomically(path, (json.dumps(report | {"rows": rows}, indent=1) + "\n").encode())


def _row(key: StepKey, seconds: float, estimator: Estimator) -> dict[str, Any]:
    """One step, timed and estimated, in seconds; no estimate where there can be none."""
    found = estimator.estimate(key)
    return {
        "signature": key.signature,
        "family": family(step_shape(key.signature)),
        "variant": str(key.variant),
        "kernel": key.kernel,
        "output": key.output,
        "timed": seconds,
        "estimated": found and found.median,
        "low": found and found.low,
        "high": found and found.high,
        "error": None if found is None else found.median / seconds - 1,
    }


def _say(rows: Sequence[dict[str, Any]], name: Callable[[dict[str, Any]], str]) -> None:
    """A table with a line for every name; `sum`: by how much all steps together are estimated too slow."""
    kinds: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        kinds[name(row)].append(row)
    print("\n| | steps | within 15 % | median error | 90 % of errors below | inside the bars | sum |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for kind, found in kinds.items():
        known = [row for row in found if row["error"] is not None]
        if not known:
            print(f"| {kind} | {len(found)} | no estimate | | | | |")
            continue
        errors = np.abs([row["error"] for row in known])
        inside = np.mean([row["low"] <= row["timed"] <= row["high"] for row in known])
        together = sum(row["estimated"] for row in known) / sum(row["timed"] for row in known) - 1
        print(
            f"| {kind} | {len(known)} | {100 * np.mean(errors <= CLOSE):.0f} % | {100 * np.median(errors):.1f} % | "
            f"{100 * np.quantile(errors, 0.9):.0f} % | {100 * inside:.0f} % | {100 * together:+.1f} % |"
        )


if __name__ == "__main__":
    main()
