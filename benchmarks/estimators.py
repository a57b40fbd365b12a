"""What each loss estimator's plans are worth: KL to full precision and accuracy on test images, at equal file sizes.

    python benchmarks/estimators.py [NETWORK ...] [--estimators NAME ...] [--bits B ...] [--images N] [--polish N]
                                    [--encodings NAME ...] [--recovery PRESET] [--measured-under PRESET ...]

For every estimator and budget (bits per weight, on top of the constant part, scales and biases) the program is solved by
the same solvers, the policy carried out with the same recovery, and compared with that of `separable` image by image.
Losses of choices are measured under that recovery, or under each of those that --measured-under names.
With --polish N there are two more rows: the plans of `separable` and `tempered` after swaps that measuring whole policies
(at their temperature) has confirmed, N of them measured for each budget.
Profiles, and what policies cost, are kept in --cache; a run that was interrupted goes on.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from against_peers import machine_folder
from networks import Case, cases, simulated
from numpy.typing import NDArray

from bitplan.atomic_file import write_atomically
from bitplan.kernels.artifact import constant_bytes
from bitplan.optimizer.plan import plan
from bitplan.optimizer.polish import polish
from bitplan.policies.menu import menu_for
from bitplan.policies.policy import Policy
from bitplan.policies.realise import realise
from bitplan.policies.realise.steps import recoveries
from bitplan.profiles.estimators import ESTIMATORS
from bitplan.profiles.estimators.tempered import TEMPERATURE
from bitplan.profiles.loss import LossProfile
from bitplan.profiles.measure_loss import measure
from bitplan.profiles.metrics import divergence, log_probabilities
from bitplan.recovery_names import PRESETS, layer_steps
from bitplan.simulate import Simulator
from bitplan.targets import Targets
from bitplan.true_loss import TrueLoss
from bitplan.variant import FLOAT32, Variant

BITS = (1.2, 1.4, 1.6, 1.8, 2.0, 2.5, 3.0, 4.0)
BASE = "separable"
POLISHED = {BASE: 1.0, "tempered": TEMPERATURE}
"""What is polished where asked for, and the temperature of the loss that is measured then."""
LEFT_OUT = ("clado",)
"""Not run unless asked for: it takes hours on all but the smallest networks."""
TIME_LIMIT = 10.0
"""Seconds for the program of one budget."""
MENU = ("int8", "int4", "int3", "int2", "ternary", "binary", "apb")
FAST = "fast"
MIDDLE = (1.6, 2.5)
"""The budgets that the last column is averaged over."""


@dataclass
class Bench:
    """One network with its test images."""

    case: Case
    images: int
    cache: Path
    encodings: Sequence[str] = MENU
    recovery: str = FAST
    """The preset that policies are carried out with."""
    base: dict[float, NDArray[np.float32]] = field(default_factory=dict)
    """By bits per weight, the losses that others are compared with."""

    @cached_property
    def menu(self) -> dict[str, list[Variant]]:
        found = menu_for(self.case.network, encodings=self.encodings)
        return {name: [v for v in own if v != FLOAT32] for name, own in found.items()}

    @cached_property
    def simulator(self) -> Simulator:
        return Simulator(self.case.network, self.case.weights)

    @cached_property
    def reference(self) -> NDArray[np.float32]:
        return simulated(self.simulator, self.case.test[: self.images], self.case.batch)

    def profile(self, estimator: str, recovery: str) -> LossProfile:
        """Losses of choices, measured with the recovery of this preset."""
        path = self.cache / f"{self.case.name}.{estimator}.{recovery}.arrow"
        known = LossProfile.load(path) if path.exists() else None
        profile = measure(
            self.case.network,
            self.case.weights,
            self.case.loss_images,
            self.menu,
            estimator=estimator,
            recovery=layer_steps(PRESETS[recovery]),
            checkpoint=path.with_suffix(".journal"),
            profile=known,
        )
        profile.save(path)
        return profile

    def budget(self, bits: float) -> Targets:
        """Bytes of the artifact with so many bits per weight."""
        network = self.case.network
        weights = sum(network.weight_shape(node).count for node in network.layers)
        scales = sum(4 * node.shape[0] for node in network.layers)
        return Targets(bytes=constant_bytes(network) + scales + int(bits / 8 * weights))

    def planned(self, profile: LossProfile, bits: float) -> Policy:
        return plan(self.case.network, profile, None, self.budget(bits), self.menu, time_limit=TIME_LIMIT)

    def polished(self, profile: LossProfile, bits: float, evaluations: int, temperature: float) -> tuple[Policy, int]:
        """The plan of a profile after swaps, with so many policies measured at most; and how many were."""
        network, images, steps = self.case.network, self.case.loss_images, layer_steps(PRESETS[self.recovery])
        found = polish(
            network,
            self.planned(profile, bits),
            profile,
            None,
            self.budget(bits),
            self.menu,
            TrueLoss(
                network,
                self.case.weights,
                (images[::2], images[1::2]),
                self.menu,
                recovery=steps,
                temperature=temperature,
            ),
            evaluations=evaluations,
            journal=self.cache / f"{self.case.name}.polish-{profile.estimator}-{bits}-{self.recovery}.journal",
            key=json.dumps(dict(profile.hashes)),
        )
        return found.policy, found.evaluations

    def losses(self, variants: Mapping[str, Variant]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """KL and whether the class is right, of each test image."""
        text = json.dumps(
            [self.images, self.recovery, [[name, str(variant)] for name, variant in sorted(variants.items())]]
        )
        path = self.cache / f"{self.case.name}-{hashlib.sha256(text.encode()).hexdigest()[:24]}.npz"
        if not path.exists():
            steps = recoveries(layer_steps(PRESETS[self.recovery]))
            carried = realise(self.case.network, self.case.weights, self.case.calibration, variants, recoveries=steps)
            test = self.case.test[: self.images]
            outputs = simulated(self.simulator, test, self.case.batch, carried.layers, carried.ranges)
            losses = divergence(log_probabilities(self.reference), log_probabilities(outputs))
            np.savez(path, losses=losses, right=outputs.argmax(1) == self.case.labels[: self.images])
        found = np.load(path)
        return found["losses"], found["right"]

    def rows(
        self, estimators: Sequence[str], measured_under: Sequence[str], budgets: Sequence[float], evaluations: int = 0
    ) -> list[dict[str, Any]]:
        """One for each estimator, preset that its losses are measured under, and budget, compared with BASE under the
        first preset; with `evaluations`, also for polished plans."""
        found = []
        for preset in measured_under:
            for estimator in dict.fromkeys([BASE, *estimators]):
                profile = self.profile(estimator, preset)
                plans = {bits: self.planned(profile, bits).variants for bits in budgets}
                name = estimator if preset == self.recovery else f"{estimator} under {preset}"
                found += self._compared(name, plans, profile.passes)
        for estimator, temperature in POLISHED.items() if evaluations else ():
            profile = self.profile(estimator, self.recovery)
            for bits in budgets:
                policy, measured = self.polished(profile, bits, evaluations, temperature)
                found += self._compared(f"{estimator} + polish", {bits: policy.variants}, profile.passes, measured)
        return found

    def _compared(
        self, name: str, plans: Mapping[float, Mapping[str, Variant]], passes: float, evaluations: int = 0
    ) -> list[dict[str, Any]]:
        found = []
        for bits, variants in plans.items():
            losses, right = self.losses(variants)
            gain = losses - self.base.setdefault(bits, losses)
            found.append(
                {
                    "network": self.case.name,
                    "estimator": name,
                    "recovery": self.recovery,
                    "bits": bits,
                    "kl": float(losses.mean()),
                    "kl_beyond_separable": float(gain.mean()),
                    "standard_error": float(gain.std(ddof=1) / np.sqrt(len(gain))),
                    "accuracy": float(right.mean()),
                    "passes": passes,
                    "policies_measured": evaluations,
                    "images": len(losses),
                }
            )
        print(line(self.case.name, name, found), flush=True)
        return found


def line(network: str, estimator: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """One row of the table: KL at every budget with the paired difference in standard errors, then the mean relative
    difference over the MIDDLE budgets."""
    cells = [
        f"{row['kl']:.3f} ({row['kl_beyond_separable'] / max(row['standard_error'], 1e-12):+.1f})"
        if estimator != BASE
        else f"{row['kl']:.3f}"
        for row in rows
    ]
    middle = [
        row["kl_beyond_separable"] / (row["kl"] - row["kl_beyond_separable"])
        for row in rows
        if MIDDLE[0] <= row["bits"] <= MIDDLE[1]
    ]
    mean = f"{100 * np.mean(middle):+.1f} %" if middle else ""
    accuracies = ", ".join(f"{100 * row['accuracy']:.1f}" for row in rows)
    return f"| {network} | {estimator} | {' | '.join(cells)} | {mean} | {accuracies} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=["resnet20"])
    usual = [name for name in ESTIMATORS if name not in LEFT_OUT]
    parser.add_argument("--estimators", nargs="+", choices=list(ESTIMATORS), default=usual)
    parser.add_argument("--bits", nargs="+", type=float, default=list(BITS))
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--encodings", nargs="+", default=list(MENU), help="what each layer may be")
    presets = [name for name in PRESETS if name != "strong"]
    parser.add_argument("--recovery", choices=presets, default=FAST, help="with which policies are carried out")
    parser.add_argument("--measured-under", nargs="+", choices=presets, help="default: the same")
    parser.add_argument("--polish", type=int, default=0, help="policies measured to polish each plan of separable")
    parser.add_argument("--cache", type=Path, default=Path("build/estimators"))
    parser.add_argument("--json", type=Path, help="default: benchmarks/results/<machine>/estimators-<network>.json")
    arguments = parser.parse_args()
    arguments.cache.mkdir(parents=True, exist_ok=True)
    for case in cases(arguments.networks):
        bench = Bench(case, arguments.images, arguments.cache, arguments.encodings, arguments.recovery)
        under = arguments.measured_under or [arguments.recovery]
        rows = bench.rows(arguments.estimators, under, arguments.bits, arguments.polish)
        ending = "" if arguments.recovery == FAST else f"-{arguments.recovery}"
        path = arguments.json or machine_folder() / f"estimators-{case.name}{ending}.json"
        write_atomically(path, json.dumps(rows, indent=1).encode())


if __name__ == "__main__":
    main()
