"""Predicted against measured latency of whole networks, for random policies, on one thread.

    python benchmarks/latency_prediction.py [NETWORK ...] [--policies 20] [--profile FILE] [--json FILE]

Each network's steps are measured (unless --profile has them), then every policy is predicted as the sum of its steps'
medians, scaled by the anchor's drift, and timed in a fresh process. Bars: error at most 5 % in the median and 15 % in the
worst case. ResNet-20 runs with its trained weights and calibrated ranges (where BITPLAN_TEST_DATA is set), torchvision's
ResNet-18 and MobileNetV2 with random ones.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from networks import cases, data_folder

from bitplan.capture import capture
from bitplan.encodings import default_menu, encoding_of
from bitplan.kernels.artifact import pack_artifact
from bitplan.network import Network
from bitplan.policies.realise import realise
from bitplan.profiles.device import DeviceProfile
from bitplan.profiles.measure_latency import measure
from bitplan.profiles.measure_policy import measure_policy
from bitplan.profiles.stand_in import stand_in_artifact, stand_in_input
from bitplan.variant import Variant

MEDIAN_BAR, WORST_BAR = 0.05, 0.15
CALIBRATION = 64


@dataclass(frozen=True)
class Subject:
    """A network, and how a policy for it becomes an artifact."""

    name: str
    network: Network
    artifact: Callable[[dict[str, Variant]], bytes]


def trained(name: str) -> Subject:
    case = cases([name])[0]

    def artifact(policy: dict[str, Variant]) -> bytes:
        carried = realise(case.network, case.weights, case.calibration[:CALIBRATION], policy)
        return pack_artifact(case.network, case.weights, carried.layers, carried.ranges)

    return Subject(name, case.network, artifact)


def untrained(name: str) -> Subject:
    torch.manual_seed(0)
    module = torchvision.models.get_model(name, weights=None).eval()
    network, _ = capture(module, torch.rand(2, 3, 224, 224))
    return Subject(name, network, lambda policy: stand_in_artifact(network, policy, seed=1))


def random_policies(network: Network, count: int) -> list[dict[str, Variant]]:
    """Every layer's variant drawn from the whole menu."""
    rng = np.random.default_rng(1)
    menu = layer_menu(network)
    return [{name: variants[rng.integers(len(variants))] for name, variants in menu.items()} for _ in range(count)]


def layer_menu(network: Network) -> dict[str, tuple[Variant, ...]]:
    return {
        node.name: tuple(v for v in default_menu() if encoding_of(v).supports(network.weight_shape(node)))
        for node in network.layers
    }


def compare(subject: Subject, policies: int, profile: DeviceProfile | None) -> tuple[DeviceProfile, dict[str, Any]]:
    """The profile with the network's steps, and what was found."""
    start = time.perf_counter()
    profile = measure(subject.network, layer_menu(subject.network), profile=profile, progress=show_progress)
    seconds = time.perf_counter() - start
    inputs = stand_in_input(subject.network)
    rows: list[dict[str, Any]] = []
    print(f"\n{subject.name}: {len(profile.entries)} steps in the profile, measured in {seconds:.0f} s")
    print("policy  predicted ms  measured ms (10 % - 90 %)   drift   error")
    for number, policy in enumerate(random_policies(subject.network, policies)):
        measured = measure_policy(subject.artifact(policy), inputs)
        drift = profile.drift(measured.anchor)
        predicted = profile.predict(subject.network, policy) * drift
        error = predicted / measured.latency.median - 1
        low, median, high = (1e3 * x for x in (measured.latency.low, measured.latency.median, measured.latency.high))
        print(
            f"{number:6}  {1e3 * predicted:12.3f}  {median:11.3f} ({low:.3f} - {high:.3f})  {drift:6.3f}  {error:+6.1%}",
            flush=True,
        )
        rows.append(
            {"predicted_ms": 1e3 * predicted, "measured_ms": [low, median, high], "drift": drift, "error": error}
        )
    errors = np.abs([row["error"] for row in rows])
    found = {
        "network": subject.name,
        "median_error": float(np.median(errors)),
        "worst_error": float(errors.max()),
        "profile_seconds": seconds,
        "policies": rows,
    }
    print(f"{subject.name}: error {np.median(errors):.1%} in the median, {errors.max():.1%} at worst", flush=True)
    return profile, found


def show_progress(done: int, total: int) -> None:
    if done % max(total // 10, 1) == 0:
        print(f"  {done} of {total} visits", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    subjects = {
        "resnet20": lambda: trained("resnet20"),
        "resnet18": lambda: untrained("resnet18"),
        "mobilenet_v2": lambda: untrained("mobilenet_v2"),
    }
    parser.add_argument("networks", nargs="*", help=f"of {', '.join(subjects)}; all by default")
    parser.add_argument("--policies", type=int, default=20)
    parser.add_argument("--profile", type=Path, help="device profile to continue; new steps are added to it")
    parser.add_argument("--json", type=Path, help="where to write the results")
    arguments = parser.parse_args()
    if unknown := set(arguments.networks) - set(subjects):
        parser.error(f"unknown networks {sorted(unknown)}; there are {list(subjects)}")
    torch.set_num_threads(1)
    profile = DeviceProfile.load(arguments.profile) if arguments.profile and arguments.profile.exists() else None
    results = []
    for name in arguments.networks or subjects:
        if name == "resnet20" and data_folder() is None:
            print("resnet20 is left out: BITPLAN_TEST_DATA is not set", file=sys.stderr)
            continue
        profile, found = compare(subjects[name](), arguments.policies, profile)
        results.append(found)
        if arguments.profile:
            profile.save(arguments.profile)
    if arguments.json and profile:
        report = {"machine": profile.fingerprint.to_json(), "bars": [MEDIAN_BAR, WORST_BAR], "networks": results}
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")
    if any(found["median_error"] > MEDIAN_BAR or found["worst_error"] > WORST_BAR for found in results):
        raise SystemExit("the bars are not met")


if __name__ == "__main__":
    main()
