"""A trial carried out: planned under its settings, recovered on calibration images, and measured on others that are held back
from all trials alike. Test images are never looked at."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bitplan.config import Config
from bitplan.data import Dataset
from bitplan.errors import DataError
from bitplan.file_lock import PATIENCE, patiently
from bitplan.optimizer.build_problem import full_precision_limit
from bitplan.optimizer.plan import plan
from bitplan.optimizer.study import Evaluated, Settings, Watch
from bitplan.policies.menu import Menu
from bitplan.policies.policy import Policy
from bitplan.policies.policy_file import write_policy
from bitplan.profiles.device import DeviceProfile
from bitplan.profiles.estimators import estimator_named
from bitplan.profiles.loss import LossProfile
from bitplan.profiles.workers import one_thread
from bitplan.profiling import loss_profile
from bitplan.progress import Reporter
from bitplan.progress.events import BEGUN, PROGRESS, Event
from bitplan.studies.files import save_tried
from bitplan.studies.knobs import CALIBRATION
from bitplan.studies.losses import HeldBackLosses
from bitplan.studies.space import Space
from bitplan.targets import Targets
from bitplan.trained import Trained
from bitplan.workflow import POLICY

HELD_BACK = 0.25
"""Share of the calibration images that trials are measured on."""


def divided(trained: Trained, seed: int) -> Trained:
    """The network with the calibration images that trials use, in an order drawn by the seed, and in place of the test
    images those held back. Raises DataError where there are too few."""
    data = trained.data
    count = len(data.calibration_x)
    held = max(1, round(HELD_BACK * count))
    if count - held < 2:
        raise DataError(
            f"a study holds back a quarter of the calibration images, and there are {count}; give at least four"
        )
    order = np.random.default_rng(seed).permutation(count)
    shown, judged = order[held:], np.sort(order[:held])
    labels = data.calibration_y

    def known(numbers: NDArray[np.int64]) -> NDArray[np.int64] | None:
        return None if labels is None else labels[numbers]

    images = data.calibration_x
    own = Dataset(images[shown], known(shown), images[judged], known(judged), data.name)
    return replace(trained, data=own)


@dataclass(frozen=True)
class Trials:
    """Evaluates settings. `trained`: as `divided` makes it; `limits`: what plans are made under; `targets`: those of the
    user, which are the constraints, with the objective of the planner's own solution; `losses`: measures them; `folder`: of
    the study."""

    trained: Trained
    space: Space
    limits: Targets
    targets: Targets
    device: DeviceProfile
    losses: HeldBackLosses
    folder: Path

    def __call__(self, settings: Settings, watch: Watch) -> Evaluated:
        """Raises InfeasibleError where no policy meets the limits."""
        config, menu = self.space.config_of(settings), self.space.menu_of(settings)
        limits = self.space.targets_of(settings, self.limits)
        if watch.planner and self.targets.objective != "loss":  # the one plan that rests on predicted losses
            config = replace(config, link_policies=self.space.config.link_policies)
            limits = replace(self.targets, max_drop=None)
        reporter = forwarded(watch.doing)
        with one_thread():
            profile = self._profile(config, menu, reporter)
            watch.doing("planning")
            policy = plan(
                self.trained.network,
                profile,
                self.device,
                limits,
                menu,
                threads=config.threads,
                batch=config.batch,
                time_limit=config.time_limit,
                seed=config.seed,
            )
            path = self._kept(watch.number, policy, config, settings)
            fitted = self._fitted(settings)
            key = self.losses.key(fitted, policy, config)
            final = self.losses(key, fitted, policy, config, reporter, watch)
        values = {
            "loss": float(final.mean()),
            "latency": policy.predicted.get("latency_ms"),
            "bytes": policy.predicted.get("file_bytes"),
            "memory": policy.predicted.get("resident_bytes"),
        }
        numbers = {name: float(value) for name, value in values.items() if value is not None}
        attributes = {
            **numbers,
            "loss_standard_error": float(final.std() / np.sqrt(len(final))),
            "predicted_loss": policy.predicted.get("loss"),
            "loss_scale": profile.scale,
            "solver_status": policy.certificate.status,
            "gap": policy.certificate.gap,
            "policy": str(path),
            "losses": key,
        }
        return Evaluated(numbers, self._constraints(policy, numbers), attributes)

    def _profile(self, config: Config, menu: Menu, reporter: Reporter) -> LossProfile:
        """The losses of choices. An estimator that cannot add choices to those it has measured measures all at once that some
        trial may need; then they do not depend on which trial came first either."""
        adds = estimator_named(str(config.loss_profile)).method().incremental
        wanted = menu if adds else self.space.largest_menu()
        return patiently(lambda: loss_profile(self.trained, config, reporter, wanted), PATIENCE)

    def _fitted(self, settings: Settings) -> Trained:
        """With the first of the images, as many as the settings say."""
        data, count = self.trained.data, int(settings.get(CALIBRATION, 0)) or None
        labels = None if data.calibration_y is None else data.calibration_y[:count]
        return replace(self.trained, data=replace(data, calibration_x=data.calibration_x[:count], calibration_y=labels))

    def _kept(self, number: int, policy: Policy, config: Config, settings: Settings) -> Path:
        """Leaves the policy with the configuration that carries it out."""
        folder = self.folder / "trials" / f"{number:04d}"
        noted = replace(policy, settings={**policy.settings, "study": {"trial": number, "settings": dict(settings)}})
        write_policy(folder / POLICY, noted)
        save_tried(folder, config)
        return (folder / POLICY).absolute()

    def _constraints(self, policy: Policy, numbers: Mapping[str, float]) -> dict[str, float]:
        """The user's targets, as shares of what was asked by which they are exceeded: at most 0 where they are kept."""
        targets = self.targets
        asked = {
            "latency": (numbers.get("latency"), targets.latency and 1e3 * targets.latency),
            "bytes": (numbers.get("bytes"), targets.bytes),
            "memory": (numbers.get("memory"), targets.memory),
            "loss": (numbers["loss"], targets.loss),
            "full_precision_weights": (
                policy.predicted.get("full_precision_weights"),
                full_precision_limit(self.trained.network, targets),
            ),
        }
        return {
            name: float(value - limit) / max(float(limit), 1e-12)
            for name, (value, limit) in asked.items()
            if value is not None and limit is not None
        }


def forwarded(tell: Callable[[str], None]) -> Reporter:
    """Tells the stages of a trial to whoever shows the study."""

    def heard(event: Event) -> None:
        fields = event.fields
        if event.name == BEGUN:
            tell(fields["stage"])
        elif event.name == PROGRESS:
            tell(f"{fields['stage']} {fields['done']}/{fields['total']} {fields['doing']}".rstrip())

    return Reporter(quiet=True, listener=heard)
