"""The losses that a policy of a study has on the held-back images: carried out once, and kept under all that they depend on."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bitplan.atomic_file import write_atomically
from bitplan.config import Config
from bitplan.evaluate import outputs_of
from bitplan.finetuning import training_images, users_loss
from bitplan.measured import recovered
from bitplan.optimizer.study import Watch
from bitplan.policies.policy import Policy
from bitplan.policies.realise.finetune import finetune, parse_settings
from bitplan.policies.realise.finetune.train import TRAINED_BY
from bitplan.profiles.metrics import effective_metric, increase
from bitplan.progress import Reporter
from bitplan.recovery_journals import forget_recovery, recovery_key
from bitplan.recovery_names import CORRECT, STEPS
from bitplan.simulate import Simulator
from bitplan.trained import Trained

if TYPE_CHECKING:
    from bitplan.policies.realise import Realisation

STAGES = ("rounded", *STEPS, "finetune", "result")
"""Behind what losses are measured, in their order."""

ByStage = Mapping[str, NDArray[np.float32]]
"""Loss increases [N] over the held-back images behind each stage."""


@dataclass(frozen=True)
class HeldBackLosses:
    """Measures policies. `trained`: as `trials.divided` makes it, with the held-back images in place of the test images;
    `metric`: of the loss; `test_images`: to be left out of what is trained on; `folder`: where losses are kept."""

    trained: Trained
    metric: str
    test_images: NDArray[Any]
    folder: Path

    def __call__(
        self, key: str, fitted: Trained, policy: Policy, config: Config, reporter: Reporter, watch: Watch
    ) -> NDArray[np.float64]:
        """The loss increases [N] in the end, of the policy fitted to the calibration images of `fitted`. `watch` is told those
        of every stage, as they were found when the same was carried out before, if it was. `key`: as `key` makes it."""
        losses = self._by_stage(key, fitted, policy, config, reporter, watch)
        return losses[_last(losses)].astype(np.float64)

    def _by_stage(
        self, key: str, fitted: Trained, policy: Policy, config: Config, reporter: Reporter, watch: Watch
    ) -> ByStage:
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
            result = recovered(fitted, policy, config, reporter, watch=after).realisation
            if config.finetune:
                after("finetune", self._trained_on(fitted, policy, result, config, reporter, key))
        except Exception:  # pruned, as a rule: nobody goes on from there
            forget_recovery(fitted, policy, config)
            raise
        forget_recovery(fitted, policy, config)
        if not found:
            after("result", result)
        text = io.BytesIO()
        np.savez(text, **found)  # type: ignore[arg-type]
        write_atomically(self._path(key), text.getvalue())
        return found

    def final(self, key: str) -> NDArray[np.float64] | None:
        """The final loss increases [N] behind the attribute `losses` of a trial; None where they are not in this folder."""
        losses = self._read(key)
        return None if losses is None else losses[_last(losses)].astype(np.float64)

    def key(self, fitted: Trained, policy: Policy, config: Config) -> str:
        """All that the losses of a policy depend on."""
        training = [
            TRAINED_BY,
            config.finetune,
            *sorted(config.finetune_options),
            config.train_data,
            users_loss(config)[1],
        ]
        parts = [recovery_key(fitted, policy, config), config.loss_metric, config.seed]
        if config.finetune:
            parts += [*training, config.finetune_time]
        judged = hashlib.sha256(np.ascontiguousarray(self.trained.data.test_x).tobytes()).hexdigest()
        return hashlib.sha256(json.dumps([parts, judged]).encode()).hexdigest()[:32]

    def _trained_on(
        self, fitted: Trained, policy: Policy, start: Realisation, config: Config, reporter: Reporter, key: str
    ) -> Realisation:
        """What fine-tuning makes of it, going on where an interrupted one was."""
        unseen = np.concatenate([fitted.data.test_x, self.test_images])
        images, labels = training_images(replace(fitted, data=replace(fitted.data, test_x=unseen)), config, reporter)
        checkpoint = self._path(key).with_suffix(".safetensors")
        loss, loss_name = users_loss(config)
        with reporter.stage("fine-tuning") as report:
            result = finetune(
                fitted.network,
                fitted.weights,
                images,
                policy.variants,
                start,
                labels=labels,
                settings=parse_settings(config.finetune_options, epochs=config.finetune, seed=config.seed),
                loss=loss,
                loss_name=loss_name,
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
        metric = effective_metric(network, self.metric)
        return increase(network, metric, self.trained.test_reference, self.trained.data.test_y)(outputs, slice(None))

    @cached_property
    def simulator(self) -> Simulator:
        return Simulator(self.trained.network, self.trained.weights)

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.npz"

    def _read(self, key: str) -> ByStage | None:
        try:
            with np.load(self._path(key), allow_pickle=False) as file:
                return {stage: file[stage] for stage in STAGES if stage in file}
        except (OSError, ValueError, EOFError):
            return None


def _last(losses: ByStage) -> str:
    return max(losses, key=STAGES.index)


def _told(watch: Watch, stage: str, losses: ByStage, config: Config) -> None:
    """Reports a loss, which may end the trial unless it is the last one, for whose cost it is too late. Rounding alone says
    little of what recovery makes of it, and is not judged by."""
    last = "finetune" if config.finetune else ([*config.recovery_steps] or ["rounded"])[-1]
    step = STAGES.index(stage)
    if step >= STAGES.index(CORRECT):
        watch.loss(step, float(losses[stage].mean(dtype=np.float64)), last=stage in (last, "result"))
