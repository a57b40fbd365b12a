"""`optimize study` and its sub-commands."""

from __future__ import annotations

import math
import shlex
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from bitplan.cli_help import BriefCommand, BriefGroup, brief
from bitplan.cli_options import HOW, Json, Quiet, configured, existing, resolve
from bitplan.cli_places import studied
from bitplan.cli_reporter import finish, reporter_for
from bitplan.config import Config
from bitplan.config_values import long_seconds, texts
from bitplan.progress import Reporter
from bitplan.user_code import require_package

STUDY = "Study"
app = typer.Typer(
    cls=brief(BriefGroup, "trials", "knob", "target_latency", "budget", "output"),
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

Folder = Annotated[Path, typer.Argument(help="Folder of the study, OUTPUT/NAME.")]
Storage = Annotated[str | None, typer.Option(help="In place of the storage that the folder names.")]
DEFAULT_FOLDER = Path("bitplan-out/study")


@app.callback(invoke_without_command=True)
@partial(configured, place=studied)
def study(
    config: Config,
    reporter: Reporter,
    trials: Annotated[
        int, typer.Option(min=1, help="Trials of the study in all, earlier runs included.", rich_help_panel=STUDY)
    ] = 40,
    time_limit: Annotated[
        str | None,
        typer.Option(help="No trial is begun later: 90s, 30min, 2h.", rich_help_panel=STUDY),
    ] = None,
    objective: Annotated[
        list[str] | None,
        typer.Option(help="What is minimised: loss, latency, bytes; several by repeating.", rich_help_panel=STUDY),
    ] = None,
    knob: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME=A,B,C or NAME=LOW..HIGH: encodings, kept, activations, estimator, recovery, ranges, calibration_size, "
            "tune_epochs, finetune, finetune.OPTION, group:LAYERS, budget, latency.",
            rich_help_panel=STUDY,
        ),
    ] = None,
    sampler: Annotated[
        str,
        typer.Option(help="tpe, nsga2, nsga3, random, gp, qmc, grid, or pkg.mod:function.", rich_help_panel=STUDY),
    ] = "tpe",
    pruner: Annotated[
        str | None,
        typer.Option(
            help="none, median (with one objective the default), percentile, halving, hyperband.",
            rich_help_panel=STUDY,
        ),
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(
            help="SQLite file (by default study.db in the study's folder), journal file (.log), or a database's URL.",
            rich_help_panel=STUDY,
        ),
    ] = None,
    name: Annotated[
        str, typer.Option(help="Of the study, and its folder in the output.", rich_help_panel=STUDY)
    ] = "study",
    jobs: Annotated[int, typer.Option(min=1, help="Workers of this machine.", rich_help_panel=HOW)] = 1,
    json_output: Json = False,
) -> None:
    """An Optuna study of what a plan depends on: menu, estimator, recovery and more; its first trial is the planner's own plan.

    optimize study --trials 40 --target-latency 20ms --budget 2MB --model pkg.mod:build --data images.npz

    A trial is planned, recovered and measured on calibration images. The same command goes on where it was; called several
    times at once on one --storage it has so many workers."""
    require_package("optuna", "optimize study", "study")
    require_package("torch", "capturing and measuring a network")
    from bitplan.studies.preparing import Asked
    from bitplan.studies.running import run
    from bitplan.studies.text import verdict

    found = run(
        config,
        Asked(
            trials,
            math.inf if time_limit is None else long_seconds("time_limit", time_limit),
            texts("objective", objective or config.objective),
            sampler,
            pruner,
            tuple(knob or ()),
            storage,
            name,
            jobs,
        ),
        reporter,
    )
    reporter.say(f"[bold]{verdict(found)}[/]")
    chosen = found["best"] or next(iter(found["front"] or []), None)
    folder = shlex.quote(found["folder"])
    if chosen is not None:
        reporter.say(f"carry out and measure it with: optimize realise {folder}#{chosen['number']}")
    reporter.say(f"look at it with: optimize study show {folder}; optuna-dashboard {shlex.quote(found['storage'])}")
    finish(reporter, found, json_output)


@app.command(cls=BriefCommand)
def show(
    folder: Folder = DEFAULT_FOLDER, storage: Storage = None, quiet: Quiet = False, json_output: Json = False
) -> None:
    """All trials of a study."""
    require_package("optuna", "optimize study", "study")
    from bitplan.studies.looking import shown
    from bitplan.studies.text import trials_table

    rows, best_ones = shown(folder, storage)
    reporter = reporter_for(quiet, json_output)
    if not json_output:
        reporter.show(trials_table(rows, best_ones))
    finish(reporter, [row.to_json() for row in rows], json_output)


@app.command(cls=BriefCommand)
def best(
    folder: Folder = DEFAULT_FOLDER,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Write the (first) policy to this file.")
    ] = None,
    storage: Storage = None,
    quiet: Quiet = False,
    json_output: Json = False,
) -> None:
    """The best trial that keeps the limits; of several objectives, all that no other dominates."""
    require_package("optuna", "optimize study", "study")
    from bitplan.studies.looking import best as best_trials
    from bitplan.studies.text import trials_table

    found = best_trials(folder, output, storage)
    reporter = reporter_for(quiet, json_output)
    if not json_output:
        reporter.show(trials_table(found, ()))
    reporter.say(f"carry one out with: optimize realise {shlex.quote(str(folder))}#{found[0].number}")
    if output is not None:
        reporter.say(f"the policy of trial {found[0].number} is {output}")
    finish(reporter, [row.to_json() for row in found], json_output)


@app.command(cls=BriefCommand)
def export(
    folder: Folder = DEFAULT_FOLDER,
    output: Annotated[Path, typer.Option("-o", "--output", help="trials.csv, .json or .arrow.")] = Path("trials.csv"),
    storage: Storage = None,
    quiet: Quiet = False,
    json_output: Json = False,
) -> None:
    """Writes all trials as CSV, JSON or Arrow."""
    require_package("optuna", "optimize study", "study")
    from bitplan.studies.looking import exported

    count = exported(folder, output, storage)
    reporter = reporter_for(quiet, json_output)
    reporter.say(f"{count} trials in {output}")
    finish(reporter, {"trials": count, "output": str(output)}, json_output)


def realised_config(options: dict[str, Any], path: Path | None, own: dict[str, Any]) -> Config:
    """The configuration of `optimize realise`: of a trial (out/study#17) the one it was tried with, the options over it."""
    from bitplan.studies.files import as_tried, trial_named

    trial = trial_named(own["policy_file"])
    return resolve(options, path) if trial is None else as_tried(trial, options, existing(path))
