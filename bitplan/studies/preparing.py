"""What a study needs before its first trial: network, images, device profile, limits and storage."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bitplan.config import Config
from bitplan.errors import UsageError
from bitplan.optimizer.plan import plan
from bitplan.optimizer.study import Place, Plan, Workers, open_storage
from bitplan.optimizer.study.samplers import check_sampler, pruner_named, sampler_named
from bitplan.profiles.device import DeviceProfile
from bitplan.profiles.measure_loss import profile_hashes
from bitplan.profiling import named_estimator
from bitplan.progress import Reporter
from bitplan.result import targets_json
from bitplan.studies.files import STORAGE
from bitplan.studies.limits import fixed_device, planned_limits, targets_of_example
from bitplan.studies.losses import HeldBackLosses
from bitplan.studies.space import Space, space_of
from bitplan.studies.trials import Trials, divided
from bitplan.targets import Targets
from bitplan.trained import Trained, is_example, load_trained
from bitplan.workflow import check_output

OBJECTIVES = ("loss", "latency", "bytes")
SETTINGS = (
    "loss_metric",
    "loss_size",
    "encodings",
    "pin",
    "exclude",
    "recovery",
    "ranges",
    "tune_epochs",
    "finetune",
    "finetune_time",
    "finetune_options",
    "train_data",
    "loss",
    "threads",
    "batch",
    "time_limit",
    "margin",
)
"""What of the configuration trials depend on besides their knobs."""


@dataclass(frozen=True)
class Asked:
    """What the command was called with beside the configuration. `seconds`: of this call; `jobs`: workers."""

    trials: int = 40
    seconds: float = float("inf")
    objectives: tuple[str, ...] = ("loss",)
    sampler: str = "tpe"
    pruner: str | None = None
    knobs: tuple[str, ...] = ()
    storage: str | None = None
    name: str = "study"
    jobs: int = 1

    def __post_init__(self) -> None:
        for name in self.objectives:
            if name not in OBJECTIVES:
                raise UsageError(f"a study cannot minimise {name!r}; its objectives are {', '.join(OBJECTIVES)}")
        if len(set(self.objectives)) < len(self.objectives):
            raise UsageError(f"an objective is given twice: {', '.join(self.objectives)}; name each once")
        if not self.name or Path(self.name).name != self.name or self.name in (".", ".."):
            raise UsageError(f"the name {self.name!r} is to be that of a folder too; leave out / and dots alone")


def check(config: Config, asked: Asked) -> None:
    """Raises UsageError, before anything long begins, for what a study cannot keep."""
    if config.hybrid:
        raise UsageError("studies plan whole captured networks; leave out --hybrid")
    if config.max_drop is not None:
        raise UsageError(
            "--max-drop is kept by measuring on test images, which a study never looks at; limit --max-loss instead"
        )
    if config.polish:
        raise UsageError("a study does not polish its plans; polish what it finds, or leave --polish out")
    if named_estimator(config)[1] is not None:
        raise UsageError(
            f"a study measures losses on a part of the calibration images, and {config.loss_profile} was measured on others; "
            "name an estimator, or leave --loss-profile out"
        )
    check_sampler(asked.sampler)
    pruner_named(_pruner(asked), asked.objectives)
    if "loss" not in asked.objectives and config.max_loss is None:
        raise UsageError(
            f"{' and '.join(asked.objectives)} alone would be least for a network that is good for nothing; "
            "limit --max-loss, or add --objective loss"
        )


def _pruner(asked: Asked) -> str:
    return asked.pruner or ("median" if len(asked.objectives) == 1 else "none")


@dataclass(frozen=True)
class Prepared:
    """All that workers of a study need."""

    plan: Plan
    place: Place
    trials: Trials
    workers: Workers
    folder: Path

    def wanted(self, asked: Asked) -> int:
        """Trials in all; not more than there can be."""
        return min(asked.trials, self.plan.points or asked.trials)


def prepared(config: Config, asked: Asked, reporter: Reporter) -> Prepared:
    """Loads the network, fixes device profile and limits, and opens the storage. What was fixed by an earlier call for the
    same study stays. Raises InfeasibleError where nothing meets the limits."""
    check(config, asked)
    folder = config.output / asked.name
    check_output(folder)
    whole = load_trained(config, reporter)
    trained = divided(whole, config.seed)
    network = trained.network
    space = space_of(network, config, asked.knobs, asked.objectives, len(trained.data.calibration_x))
    sampler_named(asked.sampler, space.knobs, config.seed)  # a grid over ranges is refused now, not behind the timing
    pruner = _pruner(asked)
    place = open_storage(asked.storage or str(folder / STORAGE))
    workers = Workers(folder / "workers" if place.file is None else place.file.with_name(f"{place.file.name}.workers"))
    try:
        device = fixed_device(network, space.largest_menu(), config, folder, reporter)
        targets = replace(config.targets, objective="loss" if "loss" in asked.objectives else asked.objectives[0])
        if is_example(config) and replace(targets, objective="loss") == Targets():
            targets = targets_of_example(trained, device, config, reporter)
        limits = planned_limits(trained, device, targets, space, config)
        possible(trained, device, limits, config)
        depends = {
            "targets": targets_json(targets),
            "inputs": _inputs(trained, device),
            "settings": _settings(space),
        }
        made = Plan(asked.name, space.knobs, asked.objectives, asked.sampler, pruner, config.seed, depends)
        losses = HeldBackLosses(trained, config.loss_metric, whole.data.test_x, folder / "losses")
        trials = Trials(trained, space, limits, targets, device, losses, folder)
    except BaseException:
        workers.close()
        raise
    return Prepared(made, place, trials, workers, folder)


def possible(trained: Trained, device: DeviceProfile, limits: Targets, config: Config) -> None:
    """Raises InfeasibleError, with what can be reached instead, where nothing on the planner's own menu meets the limits."""
    under = replace(limits, loss=None, max_drop=None, objective="bytes")
    how = {"threads": config.threads, "batch": config.batch, "seed": config.seed}
    plan(trained.network, None, device, under, trained.menu, time_limit=config.time_limit, **how)


def _inputs(trained: Trained, device: DeviceProfile) -> dict[str, Any]:
    """What was measured on, as digests."""
    network, data = trained.network, trained.data
    hashes = [
        profile_hashes(network, trained.weights, images, labels, sources={})
        for images, labels in ((data.calibration_x, data.calibration_y), (data.test_x, data.test_y))
    ]
    return {
        "network": hashes[0]["network"],
        "weights": hashes[0]["weights"],
        "calibration": hashes[0]["data"],
        "held_back": hashes[1]["data"],
        "device": {"machine": device.fingerprint.hash, "anchor": device.anchor.median},
    }


def _settings(space: Space) -> dict[str, Any]:
    """What trials depend on besides their knobs."""
    config = space.config
    found = {name: getattr(config, name) for name in SETTINGS}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}
