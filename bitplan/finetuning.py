"""`--finetune`: a plan that was carried out is trained, packed and measured again."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from bitplan.config import Config
from bitplan.data import load_training_data
from bitplan.errors import DataError
from bitplan.measured import CarriedOut, measured, packed
from bitplan.network import weights_hash
from bitplan.policies.policy import Policy
from bitplan.policies.policy_file import policy_hash
from bitplan.profiles.device import DeviceProfile
from bitplan.progress import Reporter
from bitplan.recovery_journals import forget_recovery
from bitplan.stage_table import measured_stage, planned_stage, stage_table
from bitplan.trained import Trained
from bitplan.user_code import definition_of, import_function

if TYPE_CHECKING:
    from bitplan.policies.realise.finetune import Finetuned, Loss, Settings
    from bitplan.policies.realise.trained_file import Origin
    from bitplan.policies.realise.warm import WarmStart

CHECKPOINT = "finetune.safetensors"
"""In the output folder: what an interrupted training goes on from."""
TRAINED = "trained.safetensors"
"""In the output folder: the trained network, for `optimize replan` (policies/realise/trained_file.py)."""
NAME = "our plan, fine-tuned"


@dataclass(frozen=True)
class FineTuned:
    """The plan as trained, and its stages (`planned`, `recovered`, `finetuned`, `training`) as plain data."""

    carried: CarriedOut
    stages: Mapping[str, Any]

    def table(self) -> Table:
        """What planning predicted, what recovery made of it and what training made of that."""
        names = ("planned", "recovered", "finetuned")
        return stage_table({name: self.stages[name] for name in names}, "fine-tuning")


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
    warm: WarmStart | None = None,
) -> FineTuned:
    """Trains the policy that `before` carried out, for `config.finetune` epochs at most; test images are measured at the
    end only. `warm` is an earlier training that it begins with. An interrupted training goes on where it was. Raises UsageError and DataError."""
    from bitplan.policies.realise.finetune import Epoch, finetune
    from bitplan.policies.realise.trained_file import save_trained
    from bitplan.policies.realise.warm import WarmStart

    images, labels = training_images(trained, config, reporter)
    policy, settings = before.policy, _settings(config)
    for option, encodings in unused_options(config, policy).items():
        reporter.warn(f"the fine-tuning option {option} changes nothing: no layer of the policy is {encodings}")
    assert before.realisation is not None  # hybrid networks are refused with --finetune
    start = before.realisation
    loss, loss_name = users_loss(config)

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
            warm=warm,
            labels=labels,
            settings=settings,
            loss=loss,
            loss_name=loss_name,
            checkpoint=config.output / CHECKPOINT,
            seconds=math.inf if config.finetune_time is None else config.finetune_time,
            progress=report,
            on_epoch=on_epoch,
        )
    if found.set_aside:
        reporter.warn(f"the checkpoint of another training was in the way; it is kept as {found.set_aside}")
    reporter.say(outcome_of(found, settings))
    artifact = packed(trained, policy, found.realisation, config)
    save_trained(
        config.output / TRAINED,
        WarmStart(found.realisation.layers, found.realisation.ranges, found.floats),
        origin(trained, policy, artifact),
    )
    carried = measured(trained, policy, artifact, config, reporter, device, NAME)
    forget_recovery(trained, policy, config, warm)
    outcome = replace(carried.outcome, recovery=before.outcome.recovery)
    carried = replace(carried, outcome=outcome, realisation=found.realisation)
    training = {
        "epochs": len(found.history) - 1,
        "best_epoch": found.best_epoch,
        "corrected": found.corrected,
        "images": len(images),
        "history": [asdict(epoch) for epoch in found.history],
    }
    stages = {
        "planned": planned_stage(policy),
        "recovered": measured_stage(before.outcome),
        "finetuned": measured_stage(carried.outcome),
        "training": training,
    }
    return FineTuned(carried, stages)


USED_BY = {
    "ternary": ("ternary", "codedternary"),
    "zeros": ("ternary",),
    "binary": ("binary",),
    "apb_kept": ("apb", "apb4"),
    "apb_alpha": ("apb", "apb4"),
}
"""Options that act on layers of some encodings only."""


def unused_options(config: Config, policy: Policy) -> dict[str, str]:
    """Options that were given although no layer of the policy has an encoding that they act on, with these encodings."""
    given = [text.partition("=")[0].strip() for text in config.finetune_options]
    present = {variant.encoding for variant in policy.variants.values()}
    return {name: " or ".join(USED_BY[name]) for name in given if name in USED_BY and present.isdisjoint(USED_BY[name])}


def outcome_of(found: Finetuned, settings: Settings) -> str:
    """Which epoch is kept, and why there were no more."""
    epochs, best = len(found.history) - 1, found.best_epoch
    if not epochs:
        return "nothing was trained: all layers are float32, or the time was over before the first epoch"
    if epochs == settings.epochs:
        ended = ""
    elif settings.patience and epochs - best >= settings.patience:
        ended = f"; no better one in {settings.patience} more, so training ended (patience)"
    else:
        ended = f"; the time was over before epoch {epochs + 1} of {settings.epochs}"
    if not best:
        return f"training did not better the start in {epochs} epochs, so the start is kept{ended}"
    return (
        f"the best epoch was {best} of {epochs}{', with a last relative correction' if found.corrected else ''}{ended}"
    )


def users_loss(config: Config) -> tuple[Loss | None, str]:
    """The loss that `loss` names, and what tells its results from those of another one; nothing where distillation is
    asked for. Raises UsageError."""
    from bitplan.policies.realise.finetune import checked

    if not config.loss:
        return None, ""
    function = import_function(config.loss, "loss")
    return checked(function, config.loss), definition_of(config.loss, function)


def origin(trained: Trained, policy: Policy, artifact: bytes) -> Origin:
    """What the training of a policy rests on, and the artifact that it gave."""
    from bitplan.policies.realise.trained_file import Origin

    calibration, test = (_images_hash(x) for x in (trained.data.calibration_x, trained.data.test_x))
    weights = weights_hash(trained.weights)
    return Origin(
        trained.network.content_hash, weights, policy_hash(policy).hex(), calibration, test, artifact_hash(artifact)
    )


def artifact_hash(artifact: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(artifact).hexdigest()


def _images_hash(images: NDArray[Any]) -> str:
    digest = hashlib.sha256(f"{images.dtype} {images.shape}".encode())
    digest.update(np.ascontiguousarray(images).data)
    return digest.hexdigest()


def training_images(
    trained: Trained, config: Config, reporter: Reporter
) -> tuple[NDArray[Any], NDArray[np.int64] | None]:
    """Images [N, ...] and labels to train on: those of `train_data` that are no test images, or the calibration images. They
    are loaded once, so that a caller can find what is wrong with them before anything long begins. Raises DataError."""
    known = trained.__dict__.setdefault("training_images", {})
    if config.train_data not in known:
        known[config.train_data] = _loaded_images(trained, config, reporter)
    x, y = known[config.train_data]
    _settings(config).check_labels(y)
    return x, y


def _loaded_images(
    trained: Trained, config: Config, reporter: Reporter
) -> tuple[NDArray[Any], NDArray[np.int64] | None]:
    data = trained.data
    if config.train_data is None:
        return data.calibration_x, data.calibration_y
    x, y = load_training_data(config.train_data, preprocessing=trained.network.preprocessing, input_shape=data.shape)
    if x.dtype != data.test_x.dtype:
        raise DataError(f"the training images are {x.dtype} but the others {data.test_x.dtype}; they must be alike")
    tests = {image.tobytes() for image in data.test_x}
    kept = np.array([image.tobytes() not in tests for image in x])
    if not kept.all():
        reporter.warn(f"{int((~kept).sum())} training images are test images too: left out of training")
    return x[kept], None if y is None else y[kept]


def _settings(config: Config) -> Any:
    from bitplan.policies.realise.finetune import parse_settings

    return parse_settings(config.finetune_options, epochs=config.finetune, seed=config.seed)
