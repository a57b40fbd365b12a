"""`optimize study`: begins a study or goes on with it, with one worker or several, and says whether it beat the planner."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bitplan.config import Config
from bitplan.errors import BitplanError
from bitplan.failure import failure_of
from bitplan.optimizer.study import Course, begun
from bitplan.optimizer.study.rows import Row, best_rows, row_of, rows_of
from bitplan.progress import Reporter
from bitplan.studies.files import STORAGE, StudyFile
from bitplan.studies.preparing import Asked, Prepared, prepared
from bitplan.studies.text import line
from bitplan.studies.trials import Trials


def run(config: Config, asked: Asked, reporter: Reporter) -> dict[str, Any]:
    """The whole command; what `--json` prints."""
    ready = prepared(config, asked, reporter)
    try:
        return _run(ready, config, asked, reporter)
    finally:
        ready.workers.close()


def _run(ready: Prepared, config: Config, asked: Asked, reporter: Reporter) -> dict[str, Any]:
    study = begun(ready.plan, ready.place, ready.workers)
    storage = STORAGE if asked.storage is None else ready.place.recorded
    StudyFile(asked.name, storage, asked.objectives).save(ready.folder)
    knobs = ", ".join(knob.name for knob in ready.plan.knobs)
    data = ready.trials.trained.data
    reporter.say(
        f"study {asked.name!r}: {', '.join(asked.objectives)} by {knobs}; each trial is fitted to at most "
        f"{len(data.calibration_x)} calibration images and measured on {len(data.test_x)} others"
    )
    if ready.wanted(asked) < asked.trials:
        reporter.say(
            f"{ready.wanted(asked)} trials, the planner's own included, go through all combinations of the knobs"
        )
    others = _started(config, asked, reporter.form)
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
        reporter.warn("a worker ended with an error; the others have done its trials")
    if not finished:
        reporter.warn("the time ended before all trials were done; the same command goes on")
    return summary(rows_of(study, asked.objectives), asked.objectives, ready.trials, ready.folder, ready.place.shown)


def _worked(ready: Prepared, study: Any, asked: Asked, reporter: Reporter) -> bool:
    """This worker's part."""
    trials = ready.wanted(asked)
    with reporter.stage("trials") as report:
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


def _started(config: Config, asked: Asked, form: str) -> list[Any]:
    """The other workers, processes of this machine."""
    spawn = multiprocessing.get_context("spawn")
    processes = [
        spawn.Process(target=_other, args=(config, replace(asked, jobs=1), form), daemon=True)
        for _ in range(asked.jobs - 1)
    ]
    for process in processes:
        process.start()
    return list(processes)


def _other(config: Config, asked: Asked, form: str) -> None:
    """Another worker's whole life; `form` is that of what it says where it fails."""
    reporter = Reporter(quiet=True)
    try:
        ready = prepared(config, asked, reporter)
        study = begun(ready.plan, ready.place, ready.workers)
        _worked(ready, study, asked, reporter)
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except BitplanError as error:
        failure = failure_of(error)
        Reporter(form=form).error(f"a worker ended: {failure.text}", failure.kind, failure.exit_code)
        raise SystemExit(failure.exit_code) from None


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
        a, b = (trials.losses.final(str(row.attributes.get("losses"))) for row in (planner, better[0]))
        if a is not None and b is not None:
            gain = a - b
            found["gain"] = float(gain.mean())
            found["gain_standard_error"] = float(gain.std() / np.sqrt(len(gain)))
    return found
