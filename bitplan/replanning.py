"""`optimize replan`: the fine-tuned network is measured anew, and bytes may move between its layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bitplan.atomic_file import write_atomically
from bitplan.config import Config
from bitplan.earlier_run import Earlier, read_earlier
from bitplan.errors import UsageError
from bitplan.finetuning import TRAINED, check_finetune, finetuned, origin, training_images
from bitplan.kept_profiles import keep_loss_profile
from bitplan.measured import CarriedOut, measured, packed, recovered, tell_idle_options, with_predictions
from bitplan.moved_bytes import moved_layers, moved_table
from bitplan.optimizer.build_problem import full_precision_limit
from bitplan.optimizer.plan import plan
from bitplan.policies.menu import Menu
from bitplan.policies.policy import Policy
from bitplan.profiles.device import DeviceProfile
from bitplan.profiles.estimators import SEPARABLE
from bitplan.profiles.loss import LossProfile
from bitplan.profiling import device_profile
from bitplan.profiling_around import calibration_parts, loss_profile_around
from bitplan.progress import Reporter
from bitplan.recovery_names import EQUALISE
from bitplan.result import Result
from bitplan.stage_table import measured_stage
from bitplan.targets import Targets, format_bytes
from bitplan.trained import Trained, load_trained
from bitplan.workflow import DEVICE, LOSS, check_output, inferred_objective, judge, write

if TYPE_CHECKING:
    from bitplan.policies.realise.pipeline import Realisation
    from bitplan.policies.realise.warm import WarmStart

FINETUNED, REPLANNED, AGAIN = "fine-tuned", "replanned", "fine-tuned again"
"""Names of the networks in tables."""


def replan(folder: Path, config: Config, reporter: Reporter) -> Result:
    """Replans what an earlier run fine-tuned, and leaves the better of both networks in `config.output`.

    Raises UsageError, DataError and FileFormatError for a folder, a model or images that do not fit, InfeasibleError for
    limits that no policy meets."""
    earlier = read_earlier(folder)
    targets = targets_of(config, earlier.policy)
    check_objective(targets)
    if EQUALISE in config.recovery_steps:
        raise UsageError(f"{EQUALISE} changes full-precision weights before training; leave it out of --recovery")
    check_output(config.output)
    check_finetune(config)
    tell_idle_options(config, reporter)
    trained = load_trained(config, reporter)
    start = earlier.start(trained, config)
    trained = replace(trained, menu=with_own(trained.menu, earlier.policy))
    if config.finetune:
        training_images(trained, config, reporter)  # what is wrong with them is found now
    return Replanning(earlier, trained, targets, config, reporter).run(start)


def check_objective(targets: Targets) -> None:
    """Raises UsageError where something other than the loss is to be made small."""
    objective = inferred_objective(targets).objective
    if targets.objective != "loss":
        raise UsageError(
            f"replanning lowers the loss within limits, but the objective is {objective}; give --objective loss with --budget "
            "or --target-latency"
        )
    if objective != "loss":
        raise UsageError(
            f"replanning lowers the loss within limits, but --max-drop makes the objective {objective} where it does not stand "
            "with both --budget and --target-latency; give both, or leave out --max-drop"
        )


def targets_of(config: Config, policy: Policy) -> Targets:
    """The limits of the configuration over those that the policy was planned under."""
    asked, planned = config.targets, policy.targets
    given = {field.name: getattr(asked, field.name) for field in fields(Targets)}
    return replace(planned, **{name: value for name, value in given.items() if value is not None})


def with_own(menu: Menu, policy: Policy) -> Menu:
    """The menu, with every layer's present variant on it unless the layer is pinned to one."""
    return {
        name: variants if len(variants) == 1 else tuple(dict.fromkeys([*variants, policy.variants[name]]))
        for name, variants in menu.items()
    }


@dataclass(frozen=True)
class Held:
    """Losses [M] of the fine-tuned network and of the new one on the images that were held back."""

    before: NDArray[np.float32]
    after: NDArray[np.float32]

    @property
    def better(self) -> bool:
        """Whether the new one is, by more than the standard error: what lies within it is as likely to be chance."""
        found = self.to_json()
        return bool(found["after"] + found["standard_error"] < found["before"])

    def to_json(self) -> dict[str, Any]:
        """Means, and the standard error of their difference, image by image."""
        difference = self.after.astype(np.float64) - self.before
        return {
            "images": len(difference),
            "before": float(self.before.mean(dtype=np.float64)),
            "after": float(self.after.mean(dtype=np.float64)),
            "standard_error": float(difference.std() / np.sqrt(len(difference))),
        }


@dataclass(frozen=True)
class Replanning:
    """Everything that replanning needs, loaded."""

    earlier: Earlier
    trained: Trained
    targets: Targets
    config: Config
    reporter: Reporter

    def run(self, start: WarmStart) -> Result:
        """Measures, plans, carries out, and keeps what is better."""
        trained, config, reporter = self.trained, self.config, self.reporter
        device = device_profile(trained, config, reporter)
        old = with_predictions(self.earlier.policy, trained.network, device, config)
        before = measured(trained, old, self.earlier.artifact, config, reporter, device, FINETUNED)
        stages = {**self.earlier.stages_on(trained), "finetuned": measured_stage(before.outcome)}
        start, profile = loss_profile_around(trained, start, config, reporter)
        device.save(config.output / DEVICE)
        profile.save(config.output / LOSS)
        policy = self._planned(profile, device)
        if policy.variants == old.variants:
            return self._kept(before, "around the trained weights the plan is the same", {"stages": stages})
        moved = moved_layers(old, policy)
        reporter.show(moved_table(moved))
        found = recovered(trained, policy, config, reporter, warm=start)
        artifact = packed(trained, policy, found.realisation, config)
        after = measured(trained, policy, artifact, config, reporter, device, REPLANNED, found.gains)
        after = replace(after, realisation=found.realisation)
        stages["replanned"] = measured_stage(after.outcome)
        self._save_trained(policy, found.realisation, start, artifact)
        if config.finetune:
            again = finetuned(trained, after, config, reporter, device, start)
            after = replace(again.carried, outcome=replace(again.carried.outcome, name=AGAIN))
            stages["finetuned_again"] = measured_stage(after.outcome)
        held = self._held_back(start, after)
        told = {
            "moved": moved,
            "held_back": held.to_json(),
            "predicted_loss": policy.predicted["loss"],
            "stages": stages,
        }
        if not held.better and self._meets(old):
            return self._kept(
                before, "on held-back calibration images the new plan is no better beyond the standard error", told
            )
        return self._replaced(before, after, told)

    def _planned(self, profile: LossProfile, device: DeviceProfile) -> Policy:
        config = self.config
        with self.reporter.stage("solving the integer program", at_most=config.time_limit):
            policy = plan(
                self.trained.network,
                profile,
                device,
                self.targets,
                self.trained.menu,
                threads=config.threads,
                batch=config.batch,
                time_limit=config.time_limit,
                seed=config.seed,
            )
        present = sum(profile.loss(*choice) for choice in self.earlier.policy.variants.items())
        predicted = policy.predicted
        self.reporter.say(
            f"{policy.certificate.status}: {format_bytes(predicted['file_bytes'] or 0)}, {predicted['latency_ms']:.3f} ms, "
            f"loss {predicted['loss']:.4g}; as it is: {present:.4g} ({profile.scale}, calibration images)"
        )
        return policy

    def _held_back(self, start: WarmStart, after: CarriedOut) -> Held:
        """Of both networks, executed exactly, on the images that neither measuring nor recovery has used. Outputs are softened,
        as recovery's judge softens them: training images saturate them."""
        from bitplan.policies.realise.distil import TEMPERATURE
        from bitplan.profiles.measure_around import losses_of
        from bitplan.profiles.measure_loss import checked_metric

        _, (images, labels) = calibration_parts(self.trained, self.config)
        new = after.realisation
        assert new is not None
        metric = checked_metric(self.trained.network, SEPARABLE, self.config.loss_metric)
        states = [(start.layers, start.ranges), (new.layers, new.ranges)]
        held = Held(
            *losses_of(
                self.trained.network,
                self.trained.weights,
                images,
                states,
                metric=metric,
                labels=labels,
                temperature=TEMPERATURE,
            )
        )
        found = held.to_json()
        self.reporter.say(
            f"loss on {found['images']} held-back calibration images, outputs softened: {found['before']:.4f} fine-tuned, {found['after']:.4f} "
            f"{after.outcome.name} (standard error of the difference {found['standard_error']:.4f})"
        )
        return held

    def _meets(self, policy: Policy) -> bool:
        """Whether a policy is predicted to meet the limits."""
        targets, predicted = self.targets, policy.predicted
        limits = {
            "file_bytes": targets.bytes,
            "latency_ms": None if targets.latency is None else 1e3 * targets.latency,
            "resident_bytes": targets.memory,
            "full_precision_weights": full_precision_limit(self.trained.network, targets),
        }
        return all(limit is None or (predicted.get(name) or 0) <= limit for name, limit in limits.items())

    def _save_trained(self, policy: Policy, found: Realisation, start: WarmStart, artifact: bytes) -> None:
        """What came of replanning, for replanning it again."""
        from bitplan.policies.realise.trained_file import save_trained

        save_trained(self.config.output / TRAINED, start.followed_by(found), origin(self.trained, policy, artifact))

    def _kept(self, before: CarriedOut, reason: str, told: Mapping[str, Any]) -> Result:
        self.reporter.say(f"[bold]kept as it is:[/] {reason}")
        write_atomically(self.config.output / TRAINED, (self.earlier.folder / TRAINED).read_bytes())
        keep_loss_profile(self.earlier.folder, before.policy, self.config.output)
        result = judge(self.targets, self.trained.network, before)
        return self._written(result, before, {"kept": True, "reason": reason, **told})

    def _replaced(self, before: CarriedOut, after: CarriedOut, told: Mapping[str, Any]) -> Result:
        result = replace(judge(self.targets, self.trained.network, after), comparison=[before.outcome])
        if not self.config.finetune:
            self.reporter.say("it was not trained further; --finetune 10epochs does that, from the weights as they are")
        return self._written(result, after, {"kept": False, **told})

    def _written(self, result: Result, carried: CarriedOut, told: Mapping[str, Any]) -> Result:
        result = replace(result, replanning=told)
        return write(self.config, self.trained.network, result, carried.artifact)
