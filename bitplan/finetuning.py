"""`--finetune`: a plan that was carried out is trained, packed and measured again."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from bitplan.config import Config
from bitplan.data import load_training_data
from bitplan.errors import DataError
from bitplan.measured import CarriedOut, measured, packed
from bitplan.policies.policy import Policy
from bitplan.profiles.device import DeviceProfile
from bitplan.progress import Reporter
from bitplan.result import Outcome
from bitplan.targets import format_bytes
from bitplan.trained import Trained
from bitplan.user_code import import_function

CHECKPOINT = "finetune.safetensors"
"""In the output folder: what an interrupted training goes on from."""
NAME = "our plan, fine-tuned"


@dataclass(frozen=True)
class FineTuned:
    """The plan as trained, and its stages (`planned`, `recovered`, `finetuned`, `training`) as plain data."""

    carried: CarriedOut
    stages: Mapping[str, Any]

    def table(self) -> Table:
        """What planning predicted, what recovery made of it and what training made of that."""
        labelled = self.stages["recovered"]["accuracy"] is not None
        table = Table(title="fine-tuning", title_style="bold")
        for heading in ("", "file", "loss", "agreement", *(["accuracy"] if labelled else [])):
            table.add_column(heading, justify="right" if heading else "left")
        for stage in ("planned", "recovered", "finetuned"):
            found = self.stages[stage]
            shares = [found["agreement"], *([found["accuracy"]] if labelled else [])]
            loss = "-" if found["loss"] is None else f"{found['loss']:.4f}"
            size = "-" if found["file_bytes"] is None else format_bytes(found["file_bytes"])
            table.add_row(stage, size, loss, *("-" if share is None else f"{100 * share:.2f} %" for share in shares))
        return table


def check_finetune(config: Config) -> None:
    """Raises UsageError, before anything long begins, for options that cannot be trained with."""
    if not config.finetune:
        return
    from bitplan.user_code import require_package

    require_package("torch", "fine-tuning")
    _settings(config)
    if config.loss:
        import_function(config.loss, "loss")


def finetuned(
    trained: Trained,
    before: CarriedOut,
    config: Config,
    reporter: Reporter,
    device: DeviceProfile | None,
) -> FineTuned:
    """Trains the policy that `before` carried out, for `config.finetune` epochs at most; test images are measured at the
    end only. An interrupted training goes on where it was. Raises UsageError and DataError."""
    from bitplan.policies.realise.finetune import Epoch, checked, finetune

    images, labels = training_images(trained, config, reporter)
    policy = before.policy
    assert before.realisation is not None  # hybrid networks are refused with --finetune
    start = before.realisation
    loss = checked(import_function(config.loss, "loss"), config.loss) if config.loss else None

    def on_epoch(number: int, epoch: Epoch) -> None:
        loss_text = "start" if epoch.loss is None else f"epoch {number}/{config.finetune}: loss {epoch.loss:.4f}"
        worth = epoch.agreement if epoch.accuracy is None else epoch.accuracy
        name = "agreement" if epoch.accuracy is None else "accuracy"
        share = "" if worth is None else f", {name} {100 * worth:.2f} %"
        reporter.say(f"  {loss_text}; held back: loss {epoch.held_back:.4f}{share}")

    with reporter.stage(f"fine-tuning on {len(images):,} images, {config.finetune} epochs at most") as report:
        found = finetune(
            trained.network,
            trained.weights,
            images,
            policy.variants,
            start,
            labels=labels,
            settings=_settings(config),
            loss=loss,
            loss_name=config.loss or "",
            checkpoint=config.output / CHECKPOINT,
            seconds=math.inf if config.finetune_time is None else config.finetune_time,
            progress=report,
            on_epoch=on_epoch,
        )
    reporter.say(
        f"the best epoch was {found.best_epoch} of {len(found.history) - 1}"
        + (", with a last relative correction" if found.corrected else "")
    )
    artifact = packed(trained, policy, found.realisation, config)
    carried = measured(trained, policy, artifact, config, reporter, device, NAME)
    training = {
        "epochs": len(found.history) - 1,
        "best_epoch": found.best_epoch,
        "corrected": found.corrected,
        "images": len(images),
        "history": [asdict(epoch) for epoch in found.history],
    }
    stages = {
        "planned": _planned(policy),
        "recovered": _stage(before.outcome),
        "finetuned": _stage(carried.outcome),
        "training": training,
    }
    return FineTuned(carried, stages)


def training_images(
    trained: Trained, config: Config, reporter: Reporter
) -> tuple[NDArray[Any], NDArray[np.int64] | None]:
    """Images [N, ...] and labels to train on: those of `train_data` that are no test images, or the calibration images."""
    data = trained.data
    if config.train_data is None:
        return data.calibration_x, data.calibration_y
    x, y = load_training_data(config.train_data, preprocessing=trained.network.preprocessing, input_shape=data.shape)
    if x.dtype != data.test_x.dtype:
        raise DataError(f"the training images are {x.dtype} but the others {data.test_x.dtype}; they must be alike")
    tests = {image.tobytes() for image in data.test_x}
    kept = np.array([image.tobytes() not in tests for image in x])
    if not kept.all():
        reporter.say(f"[yellow]{int((~kept).sum())} training images are test images too: left out of training[/]")
    return x[kept], None if y is None else y[kept]


def _settings(config: Config) -> Any:
    from bitplan.policies.realise.finetune import parse_settings

    return parse_settings(config.finetune_options, epochs=config.finetune, seed=config.seed)


def _planned(policy: Policy) -> dict[str, Any]:
    predicted = policy.predicted
    return {
        "file_bytes": predicted.get("file_bytes"),
        "loss": predicted.get("loss"),
        "agreement": None,
        "accuracy": None,
    }


def _stage(outcome: Outcome) -> dict[str, Any]:
    evaluation = outcome.evaluation
    return {
        "file_bytes": outcome.file_bytes,
        "loss": evaluation.loss if evaluation else None,
        "agreement": evaluation.agreement if evaluation else None,
        "accuracy": evaluation.accuracy if evaluation else None,
    }
