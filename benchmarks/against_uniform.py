"""Our plan against every uniform policy of the same bytes, on test images.

    python benchmarks/against_uniform.py [NETWORK ...] [--images N] [--json FILE]

For each uniform policy at 4 bits per weight and below: plan with its file size as the budget (no latency target), carry
both out, and compare the KL to full precision image by image. Bar: ours is lower by more than one paired standard error.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from networks import Case, cases, simulated

from bitplan.encodings import default_menu
from bitplan.kernels.artifact import artifact_bytes
from bitplan.optimizer.plan import plan, uniform_variants
from bitplan.policies.menu import menu_for
from bitplan.policies.realise import realise
from bitplan.profiles.loss import LossProfile
from bitplan.profiles.measure_loss import measure
from bitplan.profiles.metrics import divergence, log_probabilities
from bitplan.simulate import Simulator
from bitplan.targets import Targets
from bitplan.variant import Variant

EXCLUDED = ("float32", "int8")


def loss_profile(case: Case, cache: Path) -> LossProfile:
    path = cache / f"{case.name}.loss.arrow"
    menu = menu_for(case.network)
    known = LossProfile.load(path) if path.exists() else None
    profile = measure(
        case.network,
        case.weights,
        case.loss_images,
        menu,
        checkpoint=cache / f"{case.name}.loss.journal",
        profile=known,
    )
    profile.save(path)
    return profile


def compare(case: Case, images: int, cache: Path) -> list[dict[str, object]]:
    simulator = Simulator(case.network, case.weights)
    test, labels = case.test[:images], case.labels[:images]
    reference = simulated(simulator, test, case.batch)
    profile = loss_profile(case, cache)
    menu = menu_for(case.network)

    def losses(variants: dict[str, Variant]) -> tuple[np.ndarray, float]:
        carried = realise(case.network, case.weights, case.calibration, variants)
        outputs = simulated(simulator, test, case.batch, carried.layers, carried.ranges)
        losses = divergence(log_probabilities(reference), log_probabilities(outputs))
        return losses, float((outputs.argmax(1) == labels).mean())

    print(f"{case.name}: full precision {100 * (reference.argmax(1) == labels).mean():.2f} %", flush=True)
    rows = []
    for variant in default_menu():
        if variant.encoding in EXCLUDED:
            continue
        rival = uniform_variants(case.network, variant, menu)
        assert rival
        budget = artifact_bytes(case.network, rival)
        ours = plan(case.network, profile, None, Targets(bytes=budget), menu)
        assert artifact_bytes(case.network, ours.variants) <= budget
        their_losses, their_accuracy = losses(rival)
        our_losses, our_accuracy = losses(ours.variants)
        gain = their_losses - our_losses
        row: dict[str, object] = {
            "network": case.name,
            "uniform": str(variant),
            "bytes": budget,
            "uniform_kl": float(their_losses.mean()),
            "plan_kl": float(our_losses.mean()),
            "gain_in_standard_errors": float(gain.mean() / max(gain.std() / np.sqrt(len(gain)), 1e-12)),
            "uniform_accuracy": their_accuracy,
            "plan_accuracy": our_accuracy,
            "gap": ours.certificate.gap,
        }
        rows.append(row)
        print(
            f"{case.name:20s} {variant!s:16s} {budget:9d} B  KL {row['uniform_kl']:.4f} -> {row['plan_kl']:.4f} "
            f"({row['gain_in_standard_errors']:+.1f} s.e.)  accuracy {100 * their_accuracy:.2f} -> "
            f"{100 * our_accuracy:.2f} %",
            flush=True,
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--cache", type=Path, default=Path("build/profiles"))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    arguments.cache.mkdir(parents=True, exist_ok=True)
    rows = [row for case in cases(arguments.networks) for row in compare(case, arguments.images, arguments.cache)]
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
