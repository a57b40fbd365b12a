"""A trial carried out: planned under its settings, recovered on calibration images, and measured on others that are held back
from all trials alike. Test images are never looked at."""

from __future__ import annotations

import hashlib
import io
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bitplan.atomic_file import write_atomically
from bitplan.config import Config, save_resolved
from bitplan.data import Dataset
from bitplan.errors import BusyError, DataError
from bitplan.evaluate import outputs_of
from bitplan.finetuning import training_images
from bitplan.measured import recovered, recovery_key
from bitplan.optimizer.build_problem import full_precision_limit
from bitplan.optimizer.plan import plan
from bitplan.optimizer.study import Evaluated, Settings, Watch
from bitplan.policies.policy import Policy
from bitplan.policies.policy_file import write_policy
from bitplan.policies.realise.finetune import checked, finetune, parse_settings
from bitplan.profiles.device import DeviceProfile
from bitplan.profiles.loss import cache_folder
from bitplan.profiles.metrics import effective_metric, increase
from bitplan.profiles.workers import one_thread
from bitplan.progress import Report, Reporter
from bitplan.recovery_names import CORRECT, STEPS
from bitplan.simulate import Simulator
from bitplan.studies.space import CALIBRATION, Space
from bitplan.targets import Targets
from bitplan.trained import Trained
from bitplan.user_code import import_function
from bitplan.workflow import CONFIG, POLICY

if TYPE_CHECKING:
    from bitplan.policies.realise import Realisation

HELD_BACK = 0.25
"""Share of the calibration images that trials are measured on."""
STAGES = ("rounded", *STEPS, "finetune", "result")
"""Behind what losses are measured, in their order."""
PATIENCE = 1.0
"""Seconds between two attempts to measure what another worker is measuring."""

Losses = Mapping[str, NDArray[np.float32]]
"""Loss increases [N] over the held-back images behind each stage."""


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
    user, which are the constraints, with the objective of the planner's own solution; `test_images`: to be left out of what
    is trained on; `folder`: of the study."""

    trained: Trained
    space: Space
    limits: Targets
    targets: Targets
    device: DeviceProfile
    test_images: NDArray[Any]
    folder: Path

    def __call__(self, settings: Settings, watch: Watch) -> Evaluated:
        """Raises InfeasibleError where no policy meets the limits."""
        config, menu = self.space.config_of(settings), self.space.menu_of(settings)
        limits = self.space.targets_of(settings, self.limits)
        if watch.planner and self.targets.objective != "loss":  # the one plan that rests on predicted losses
            config = replace(config, link_policies=self.space.config.link_policies)
            limits = replace(self.targets, max_drop=None)
        reporter = Forwarded(watch.doing)
        with one_thread():
            profile = patiently(lambda: _profiled(self.trained, config, reporter, menu))
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
            key = self._key(fitted, policy, config)
            losses = self._losses(key, fitted, policy, config, reporter, watch)
        final = losses[_last(losses)].astype(np.float64)
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

    def measured(self, key: str) -> NDArray[np.float64] | None:
        """The final loss increases [N] behind the attribute `losses` of a trial; None where they are not in this folder."""
        losses = self._read(key)
        return None if losses is None else losses[_last(losses)].astype(np.float64)

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
        save_resolved(folder / CONFIG, replace(config, output=folder / "realised"))
        return (folder / POLICY).absolute()

    def _losses(
        self, key: str, fitted: Trained, policy: Policy, config: Config, reporter: Reporter, watch: Watch
    ) -> Losses:
        """Carried out, or as they were found when the same was carried out before."""
        known = self._read(key)
        if known is not None:
            for stage in known:
                _told(watch, stage, known, config)
            return known
        found: dict[str, NDArray[np.float32]] = {}

        def after(stage: str, best: Realisation) -> None:
            found[stage] = self._losses_of(best)
            _told(watch, stage, found, config)

        try:
            result = recovered(fitted, policy, config, reporter, after).realisation
        except BaseException as error:
            if not isinstance(error, KeyboardInterrupt):  # pruned: nobody goes on from there
                path = cache_folder() / "recovery" / f"{recovery_key(fitted, policy, config)}.journal"
                with suppress(OSError):
                    path.unlink(missing_ok=True)
            raise
        if config.finetune:
            after("finetune", self._trained_on(fitted, policy, result, config, reporter, key))
        elif not found:
            after("result", result)
        text = io.BytesIO()
        np.savez(text, **found)  # type: ignore[arg-type]
        write_atomically(self._path(key), text.getvalue())
        return found

    def _trained_on(
        self, fitted: Trained, policy: Policy, start: Realisation, config: Config, reporter: Reporter, key: str
    ) -> Realisation:
        """What fine-tuning makes of it, going on where an interrupted one was."""
        unseen = np.concatenate([fitted.data.test_x, self.test_images])
        images, labels = training_images(replace(fitted, data=replace(fitted.data, test_x=unseen)), config, reporter)
        checkpoint = self._path(key).with_suffix(".safetensors")
        with reporter.stage("fine-tuning") as report:
            result = finetune(
                fitted.network,
                fitted.weights,
                images,
                policy.variants,
                start,
                labels=labels,
                settings=parse_settings(config.finetune_options, epochs=config.finetune, seed=config.seed),
                loss=checked(import_function(config.loss, "loss"), config.loss) if config.loss else None,
                loss_name=config.loss or "",
                checkpoint=checkpoint,
                seconds=config.finetune_time or float("inf"),
                progress=report,
            )
        checkpoint.unlink(missing_ok=True)
        return result.realisation

    def _losses_of(self, found: Realisation) -> NDArray[np.float32]:
        """Of the held-back images."""
        network = self.trained.network

        def run(images: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
            outputs = self.simulator.outputs(images, found.layers, found.ranges)
            return {name: value.numpy() for name, value in outputs.items()}

        outputs = outputs_of(run, self.trained.data.test_x, self.trained.batch)
        metric = effective_metric(network, self.space.config.loss_metric)
        return increase(network, metric, self.trained.test_reference, self.trained.data.test_y)(outputs, slice(None))

    @cached_property
    def simulator(self) -> Simulator:
        return Simulator(self.trained.network, self.trained.weights)

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

    def _key(self, fitted: Trained, policy: Policy, config: Config) -> str:
        """All that the losses of a policy depend on."""
        training = [config.finetune, *sorted(config.finetune_options), config.train_data, config.loss]
        parts = [recovery_key(fitted, policy, config), config.loss_metric, config.seed]
        if config.finetune:
            parts += [*training, config.finetune_time]
        judged = hashlib.sha256(np.ascontiguousarray(self.trained.data.test_x).tobytes()).hexdigest()
        return hashlib.sha256(json.dumps([parts, judged]).encode()).hexdigest()[:32]

    def _path(self, key: str) -> Path:
        return self.folder / "losses" / f"{key}.npz"

    def _read(self, key: str) -> Losses | None:
        try:
            with np.load(self._path(key), allow_pickle=False) as file:
                return {stage: file[stage] for stage in STAGES if stage in file}
        except (OSError, ValueError, EOFError):
            return None


def _last(losses: Losses) -> str:
    return max(losses, key=STAGES.index)


def _told(watch: Watch, stage: str, losses: Losses, config: Config) -> None:
    """Reports a loss, which may end the trial unless it is the last one, for whose cost it is too late. Rounding alone says
    little of what recovery makes of it, and is not judged by."""
    last = "finetune" if config.finetune else ([*config.recovery_steps] or ["rounded"])[-1]
    step = STAGES.index(stage)
    if step >= STAGES.index(CORRECT):
        watch.loss(step, float(losses[stage].mean(dtype=np.float64)), last=stage in (last, "result"))


def _profiled(trained: Trained, config: Config, reporter: Reporter, menu: Mapping[str, Sequence[Any]]) -> Any:
    from bitplan.profiling import loss_profile

    return loss_profile(trained, config, reporter, dict(menu))  # type: ignore[arg-type]


def patiently(action: Callable[[], Any]) -> Any:
    """What the action returns once no other worker is at work on the same: by then it is there, as a rule."""
    while True:
        try:
            return action()
        except BusyError:
            time.sleep(PATIENCE)


class Forwarded(Reporter):
    """Tells the stages of a trial to whoever shows the study."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        super().__init__(quiet=True)
        self._tell = tell

    @contextmanager
    def stage(self, title: str) -> Iterator[Report]:
        self._tell(title)
        yield lambda done, total, doing: self._tell(f"{title} {done}/{total} {doing}".rstrip())
