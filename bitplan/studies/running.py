"""`optimize study`: begins a study or goes on with it, with one worker or several, and says whether it beat the planner."""

from __future__ import annotations

import itertools
import multiprocessing
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bitplan.config import Config
from bitplan.errors import UsageError
from bitplan.kernels.artifact import artifact_bytes
from bitplan.network import Network
from bitplan.optimizer.plan import plan, uniform
from bitplan.optimizer.study import Choices, Course, Place, Plan, Workers, begun, open_storage
from bitplan.optimizer.study.rows import Row, best_rows, row_of, rows_of
from bitplan.optimizer.study.workers import waited
from bitplan.planned_device import planned_device
from bitplan.policies.menu import Menu
from bitplan.profiles.device import DeviceProfile
from bitplan.profiles.library import profile_path
from bitplan.profiles.measure_loss import profile_hashes
from bitplan.profiles.steps import all_keys
from bitplan.profiling import known_or_timed, named_estimator
from bitplan.progress import Reporter
from bitplan.result import targets_json
from bitplan.studies.files import STORAGE, StudyFile
from bitplan.studies.space import BYTES, GROUP, LATENCY, MENU_KNOBS, Space, space_of
from bitplan.studies.text import line
from bitplan.studies.trials import Trials, divided
from bitplan.targets import Targets, format_bytes
from bitplan.trained import Trained, is_example, load_trained
from bitplan.variant import Variant
from bitplan.workflow import EXAMPLE_BYTES, EXAMPLE_LATENCY, FASTEST_MARGIN, check_output

OBJECTIVES = ("loss", "latency", "bytes")
DEVICE = "device.arrow"
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
    if "loss" not in asked.objectives and config.max_loss is None:
        raise UsageError(
            f"{' and '.join(asked.objectives)} alone would be least for a network that is good for nothing; "
            "limit --max-loss, or add --objective loss"
        )


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
    pruner = asked.pruner or ("median" if len(asked.objectives) == 1 else "none")
    place = open_storage(asked.storage or str(folder / STORAGE))
    workers = Workers(folder / "workers" if place.file is None else place.file.with_name(f"{place.file.name}.workers"))
    try:
        device = fixed_device(network, _largest_menu(space), config, folder, reporter)
        targets = replace(config.targets, objective="loss" if "loss" in asked.objectives else asked.objectives[0])
        if is_example(config) and replace(targets, objective="loss") == Targets():
            targets = example_targets(trained, device, config, reporter)
        limits = _limits(trained, device, targets, space, config)
        possible(trained, device, limits, config)
        depends = {
            "targets": targets_json(targets),
            "inputs": _inputs(trained, device),
            "settings": _settings(space),
        }
        made = Plan(asked.name, space.knobs, asked.objectives, asked.sampler, pruner, config.seed, depends)
        trials = Trials(trained, space, limits, targets, device, whole.data.test_x, folder)
    except BaseException:
        workers.close()
        raise
    return Prepared(made, place, trials, workers, folder)


def run(config: Config, asked: Asked, reporter: Reporter) -> dict[str, Any]:
    """The whole command; what `--json` prints."""
    ready = prepared(config, asked, reporter)
    try:
        return _run(ready, config, asked, reporter)
    finally:
        ready.workers.close()


def _run(ready: Prepared, config: Config, asked: Asked, reporter: Reporter) -> dict[str, Any]:
    study = begun(ready.plan, ready.place, ready.workers)
    StudyFile(asked.name, ready.place.url, asked.objectives).save(ready.folder)
    knobs = ", ".join(knob.name for knob in ready.plan.knobs)
    data = ready.trials.trained.data
    reporter.say(
        f"study {asked.name}: {', '.join(asked.objectives)} by {knobs}; each trial is fitted to at most "
        f"{len(data.calibration_x)} calibration images and measured on {len(data.test_x)} others"
    )
    if ready.wanted(asked) < asked.trials:
        reporter.say(f"the knobs have {ready.wanted(asked)} combinations; more trials would repeat them")
    others = _started(config, asked)
    try:
        finished = _worked(ready, study, asked, reporter)
    except BaseException:
        for process in others:
            process.terminate()
        raise
    finally:
        for process in others:
            process.join()
    if any(process.exitcode for process in others):
        reporter.say("[yellow]a worker ended with an error; the others have done its trials[/]")
    if not finished:
        reporter.say("[yellow]the time ended before all trials were done; the same command goes on[/]")
    return summary(rows_of(study, asked.objectives), asked.objectives, ready.trials, ready.folder, ready.place.url)


def _worked(ready: Prepared, study: Any, asked: Asked, reporter: Reporter) -> bool:
    """This worker's part."""
    trials = ready.wanted(asked)
    with reporter.stage(f"study {asked.name}") as report:
        done = 0

        def told(trial: Any) -> None:
            nonlocal done
            rows = rows_of(study, asked.objectives)
            done = sum(row.state in ("complete", "pruned") for row in rows)
            report(done, trials, "")
            reporter.say(line(row_of(trial, asked.objectives), best_rows(rows)))

        course = Course(
            study,
            ready.place.storage,
            ready.plan.knobs,
            asked.objectives,
            ready.trials,
            ready.workers,
            together=ready.place.file is not None,
            told=told,
            doing=lambda number, what: report(done, trials, f"trial {number}: {what}"),
            carry_on=_parent_lives,
        )
        return course.run(trials, asked.seconds)


def _started(config: Config, asked: Asked) -> list[Any]:
    """The other workers, processes of this machine."""
    spawn = multiprocessing.get_context("spawn")
    processes = [
        spawn.Process(target=_other, args=(config, replace(asked, jobs=1)), daemon=True) for _ in range(asked.jobs - 1)
    ]
    for process in processes:
        process.start()
    return list(processes)


def _other(config: Config, asked: Asked) -> None:
    """Another worker's whole life."""
    reporter = Reporter(quiet=True)
    try:
        ready = prepared(config, asked, reporter)
        study = begun(ready.plan, ready.place, ready.workers)
        _worked(ready, study, asked, reporter)
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def _parent_lives() -> bool:
    parent = multiprocessing.parent_process()
    return parent is None or parent.is_alive()


def summary(rows: Sequence[Row], objectives: Sequence[str], trials: Trials, folder: Path, url: str) -> dict[str, Any]:
    """What came of the study, and whether it beat the planner's own solution."""
    planner = next((row for row in rows if row.planner and row.state != "fail"), None)  # not one that was lost
    best = best_rows(rows)
    states = {state: sum(row.state == state for row in rows) for state in ("complete", "pruned", "fail", "running")}
    found: dict[str, Any] = {
        "study": folder.name,
        "folder": str(folder),
        "storage": url,
        "objectives": list(objectives),
        "trials": states,
        "planner": None if planner is None else planner.to_json(),
        "best": best[0].to_json() if best and len(objectives) == 1 else None,
        "front": [row.to_json() for row in best] if len(objectives) > 1 else None,
        "beats_planner": None,
    }
    if planner is None or planner.state != "complete" or not best:
        return found
    better = [row for row in best if row.dominates(planner) or not planner.counts]
    found["beats_planner"] = bool(better)
    if better and "loss" in planner.values:
        a, b = (trials.measured(str(row.attributes.get("losses"))) for row in (planner, better[0]))
        if a is not None and b is not None:
            gain = a - b
            found["gain"] = float(gain.mean())
            found["gain_standard_error"] = float(gain.std() / np.sqrt(len(gain)))
    return found


def fixed_device(network: Network, menu: Menu, config: Config, folder: Path, reporter: Reporter) -> DeviceProfile:
    """The device profile that all trials are predicted with. The first call for a study takes it from the file or library
    entry that is named, or times this machine, and leaves it in the folder, for later calls and for other workers."""
    path = folder / DEVICE
    with waited(path, 1.0):
        keys = all_keys(network, menu, config.threads, config.batch)
        known = DeviceProfile.load(path) if path.exists() else None
        if known is not None and all(key in known.entries for key in keys):
            _check_same(known, config, path)
            return known
        if config.device_profile is not None:
            profile = planned_device(config.device_profile, network, menu, config, reporter)
        else:
            profile = known_or_timed(network, menu, config, reporter)
        kept = replace(profile, entries={key: profile.entries[key] for key in sorted(keys)})
        kept.save(path)
        return kept


def _check_same(known: DeviceProfile, config: Config, path: Path) -> None:
    """Raises UsageError where another profile is named than the one that the study was begun with."""
    named = None if config.device_profile is None else profile_path(config.device_profile)
    if named is None or not named.exists():
        return
    given = DeviceProfile.load(named)
    if (given.fingerprint, given.anchor.median) != (known.fingerprint, known.anchor.median):
        raise UsageError(
            f"the study was begun with another device profile than {named}, which it keeps in {path}; leave --device out to "
            "go on, or begin another study with --name"
        )


def example_targets(trained: Trained, device: DeviceProfile, config: Config, reporter: Reporter) -> Targets:
    """Targets that bind on the embedded example, as the main job chooses them."""
    network, menu, how = trained.network, trained.menu, {"threads": config.threads, "batch": config.batch}
    eight_bit = uniform(network, Variant("int8"), menu, None, device, **how)
    if eight_bit is None:
        raise UsageError("no targets are given, and the menu has no int8 to take them from; name --budget")
    size = int(EXAMPLE_BYTES * artifact_bytes(network, eight_bit.variants))
    fastest = plan(network, None, device, Targets(bytes=size, objective="latency"), menu, seed=config.seed, **how)
    eight_bit_ms, fastest_ms = eight_bit.predicted["latency_ms"] or 0.0, fastest.predicted["latency_ms"] or 0.0
    wanted_ms = max(EXAMPLE_LATENCY * eight_bit_ms, FASTEST_MARGIN * fastest_ms)
    reporter.say(f"no targets were given: {format_bytes(size)} (40 % of uniform int8) and {wanted_ms:.3f} ms")
    return Targets(latency=wanted_ms * 1e-3, bytes=size)


def possible(trained: Trained, device: DeviceProfile, limits: Targets, config: Config) -> None:
    """Raises InfeasibleError, with what can be reached instead, where nothing on the planner's own menu meets the limits."""
    under = replace(limits, loss=None, max_drop=None, objective="bytes")
    how = {"threads": config.threads, "batch": config.batch, "seed": config.seed}
    plan(trained.network, None, device, under, trained.menu, time_limit=config.time_limit, **how)


def _limits(trained: Trained, device: DeviceProfile, targets: Targets, space: Space, config: Config) -> Targets:
    """What plans are made under: the targets, and where a share of a limit is turned that there is not, uniform int8's."""
    names = {knob.name for knob in space.knobs}
    lacking = [
        knob for knob, limit in ((BYTES, targets.bytes), (LATENCY, targets.latency)) if knob in names and limit is None
    ]
    if not lacking:
        return targets
    eight_bit = uniform(
        trained.network, Variant("int8"), trained.menu, None, device, threads=config.threads, batch=config.batch
    )
    if eight_bit is None:
        raise UsageError(
            f"the knob {lacking[0]} is a share of a limit, and there is none; give --budget or --target-latency"
        )
    size, latency = eight_bit.predicted["file_bytes"], eight_bit.predicted["latency_ms"]
    return replace(
        targets,
        bytes=int(size or 0) if BYTES in lacking else targets.bytes,
        latency=1e-3 * (latency or 0) if LATENCY in lacking else targets.latency,
    )


def _largest_menu(space: Space) -> Menu:
    """Every variant that some trial may give a layer."""
    domains = {
        knob.name: knob.domain.values
        for knob in space.knobs
        if isinstance(knob.domain, Choices) and (knob.name in MENU_KNOBS or knob.name.startswith(GROUP))
    }
    found: dict[str, dict[Variant, None]] = {}
    for values in itertools.product(*domains.values()):
        for layer, variants in space.menu_of(dict(zip(domains, values, strict=True))).items():
            found.setdefault(layer, {}).update(dict.fromkeys(variants))
    return {layer: tuple(variants) for layer, variants in found.items()}


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
