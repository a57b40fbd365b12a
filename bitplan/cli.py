"""The `optimize` command. Everything for people goes to standard error; `--json` puts one object on standard output."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from bitplan import __version__
from bitplan.cli_help import BriefCommand, BriefGroup, brief
from bitplan.cli_options import Json, Quiet, WithReport, configured
from bitplan.cli_places import main_job, planned, written
from bitplan.cli_reporter import ProgressForm, complain, finish, form_asked, others_heard, reported, reporter_for
from bitplan.config import COMMAND_LINE, Config
from bitplan.errors import BitplanError, InfeasibleError
from bitplan.failure import INTERRUPTED, ClickError, failure_of
from bitplan.interchange_cli import export, policy_app
from bitplan.profile_cli import app as profile_app
from bitplan.progress import JSON, Reporter
from bitplan.progress.valid_json import json_text
from bitplan.replan_cli import replan
from bitplan.runs_cli import runs
from bitplan.study_cli import app as study_app
from bitplan.study_cli import realised_config

OF_PLANNING = (
    "encodings",
    "polish",
    "rounds",
    "time_limit",
    "loss_profile",
    "link_policies",
    "jobs",
    "backend",
    "cluster",
)
"""Options that a policy which stands already has no use for."""
NEXT = "All options: --help-all. Next: optimize --budget 60kB, then optimize report"
"""What to do after reading the help: the embedded example, and a look at what came of it."""

app = typer.Typer(
    name="optimize",
    cls=brief(BriefGroup, "model", "data", "target_latency", "budget", "output"),
    epilog=NEXT,
    add_completion=True,
    rich_markup_mode="rich",
    no_args_is_help=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(profile_app, name="profile", short_help="Measures machine and network, for plans made later.")
app.add_typer(study_app, name="study", short_help="An Optuna study of what a plan depends on.")
app.add_typer(policy_app, name="policy", short_help="Policies from other tools.")


@app.callback(invoke_without_command=True)
@partial(configured, place=main_job)
def optimize(
    config: Config,
    reporter: Reporter,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Stop at the policy: nothing is carried out.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    with_report: WithReport = False,
    json_output: Json = False,
) -> None:
    """The most accurate network for a latency target and a byte budget, with proof."""
    if version:
        print(f"bitplan {__version__}")
        return
    from bitplan.workflow import optimise

    result = optimise(config, reporter, dry_run=dry_run)
    if result.outcome is not None:
        reporter.show(result.table())
    for miss in result.misses:
        reporter.warn(f"missed: {miss}")
    if with_report:
        reported(config.output, reporter)
    where = result.artifact_path or result.policy_path
    reporter.say(f"[bold]{result.status}[/]: {where}")
    finish(reporter, result.to_json(), json_output)
    raise typer.Exit(result.exit_code)


@app.command(
    cls=brief(
        BriefCommand,
        "folder",
        "explain",
        "device_profile",
        "target_latency",
        "budget",
        "encodings",
        "output",
        "json_output",
    ),
    short_help="Plans from stored profiles alone, without torch or device.",
)
@partial(configured, place=planned)
def plan(
    config: Config,
    reporter: Reporter,
    folder: Annotated[Path, typer.Argument(help="Folder that `optimize profile` filled.")] = Path("bitplan-out"),
    explain: Annotated[
        bool, typer.Option("--explain", help="Which limits bind, what keeps each layer, the next best plans.")
    ] = False,
    json_output: Json = False,
) -> None:
    """Plans from stored profiles alone: no torch, no images and not even the device is needed.

    optimize plan out/ --device my-board.arrow --target-latency 20ms --budget 2MB
    """
    from bitplan.optimizer.plan import plan as solve
    from bitplan.planned_device import said_of_estimates, with_margin_noted
    from bitplan.planning_commands import explained, keep_inputs, output_of, stored
    from bitplan.policies.policy_file import write_policy
    from bitplan.result import PLANNED, Result
    from bitplan.workflow import POLICY

    kept = stored(folder, config, reporter)
    with reporter.stage("solving the integer program", at_most=config.time_limit):
        policy = solve(
            kept.network,
            kept.loss,
            kept.device,
            config.targets,
            kept.menu,
            threads=config.threads,
            batch=config.batch,
            time_limit=config.time_limit,
            seed=config.seed,
        )
    policy = with_margin_noted(policy, config.margin)
    output = output_of(folder, config)
    path = output / POLICY
    write_policy(path, policy)
    if output != folder:
        keep_inputs(folder, output, config)
    result = Result(PLANNED, config.targets, policy, kept.network, policy_path=path)
    reporter.say(f"{policy.certificate.status}; the policy is {path}; carry it out with: optimize realise {path}")
    if estimates := said_of_estimates(policy):
        reporter.say(estimates)
    explanation = explained(kept, policy, config, reporter) if explain else {}
    finish(reporter, result.to_json() | explanation, json_output)


@app.command(
    cls=brief(
        BriefCommand,
        "folder",
        "points",
        "device_profile",
        "target_latency",
        "budget",
        "encodings",
        "output",
        "json_output",
    ),
    short_help="The whole trade-off of loss, latency and bytes.",
)
@partial(configured, place=planned)
def frontier(
    config: Config,
    reporter: Reporter,
    folder: Annotated[Path, typer.Argument(help="Folder that `optimize profile` filled.")] = Path("bitplan-out"),
    points: Annotated[int, typer.Option("--points", min=2, help="Points on the curve, about.")] = 40,
    json_output: Json = False,
) -> None:
    """The whole trade-off of loss, latency and bytes, from stored profiles, as Arrow, PNG and HTML.

    Limits hold for all points; --time-limit is for all of them together. An interrupted run goes on where it was."""
    from bitplan.planning_commands import compute_frontier

    finish(reporter, compute_frontier(folder, config, points, reporter), json_output)


@app.command(
    cls=brief(BriefCommand, "policy_file", "model", "weights", "data", "recovery", "finetune", "output", "json_output"),
    short_help="Carries a policy out and measures the artifact.",
)
@partial(configured, resolved=realised_config, place=written)
def realise(
    policy_file: Annotated[
        Path,
        typer.Argument(
            help="Policy file, hand-edited or not, a point of a frontier (frontier.arrow#p07), or a trial (out/study#17)."
        ),
    ],
    config: Config,
    reporter: Reporter,
    with_report: WithReport = False,
    json_output: Json = False,
) -> None:
    """Carries a policy file out on the network and data given, and measures the artifact."""
    from bitplan.finetuning import check_finetune, training_images
    from bitplan.kept_profiles import keep_profiles
    from bitplan.measured import tell_idle_options, with_predictions
    from bitplan.planning_commands import policy_named
    from bitplan.policies.policy_file import validate_against
    from bitplan.profiles.device import DeviceProfile
    from bitplan.profiles.fingerprint import this_machine
    from bitplan.profiles.library import default_path, profile_path
    from bitplan.stages import stages_of
    from bitplan.studies.files import trial_named
    from bitplan.targets import Targets
    from bitplan.workflow import check_output, judged_and_trained

    check_output(config.output)
    check_finetune(config)
    tell_idle_options(config, reporter)
    if useless := [name for name in OF_PLANNING if config.sources.get(name) == COMMAND_LINE]:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in useless)
        reporter.warn(f"realise carries out the policy as it is: {options} had to be given when it was planned")
    trial = trial_named(policy_file)
    policy = policy_named(trial or policy_file)
    stages = stages_of(config)
    trained = stages.load(config, reporter)
    if config.finetune:
        training_images(trained, config, reporter)  # what is wrong with them is found now
    policy = validate_against(policy, trained.network)
    if policy.hashes.get("network", trained.network.content_hash) != trained.network.content_hash:
        reporter.warn("the policy was made for another network with layers of the same names")
    path = profile_path(config.device_profile) if config.device_profile else default_path(this_machine())
    device = DeviceProfile.load(path) if path.exists() else None
    policy = with_predictions(policy, trained.network, device, config)
    targets = config.targets if config.targets != Targets() else policy.targets
    carried = stages.carry_out(trained, policy, config, reporter, device, name=policy_file.name)
    result, _ = judged_and_trained(targets, trained, carried, config, reporter, device)
    if not config.hybrid:
        keep_profiles(trained, policy, device, (trial or policy_file).parent, config)
    if with_report:
        reported(config.output, reporter)
    reporter.show(result.table())
    finish(reporter, result.to_json(), json_output)
    raise typer.Exit(result.exit_code)


app.command(
    cls=brief(BriefCommand, "folder", "budget", "target_latency", "encodings", "finetune", "output", "json_output"),
    short_help="Moves bytes between layers of a fine-tuned network.",
)(replan)
app.command(cls=BriefCommand, short_help="Lists the runs below a folder.")(runs)
app.command(cls=BriefCommand, short_help="Writes an artifact as an ONNX file.")(export)

Artifact = Annotated[Path, typer.Argument(help="A .bitplan file, or a trial that was carried out (out/study#17).")]
DataOption = Annotated[str | None, typer.Option("--data", help="Images as for the main command; random ones without.")]
ThreadsOption = Annotated[int, typer.Option("--threads", min=1, help="Threads of the runtime.")]


@app.command(cls=BriefCommand, short_help="Executes an artifact on images.")
def run(
    artifact: Artifact,
    data: DataOption = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write the outputs to this .npz file.")] = None,
    threads: ThreadsOption = 1,
    quiet: Quiet = False,
    progress: ProgressForm = None,
    json_output: Json = False,
) -> None:
    """Executes an artifact (or the policy in a result folder) on images; prints classes, and accuracy with labels."""
    from bitplan.artifact_commands import is_policy, run_artifact
    from bitplan.policy_commands import artifact_of_policy
    from bitplan.studies.files import trial_results

    if trial := trial_results(artifact):
        artifact = trial / "policy.json"
    reporter = reporter_for(quiet, json_output, progress)
    with others_heard(reporter):
        carried_out = artifact_of_policy(artifact, reporter) if is_policy(artifact) else None
        summary = run_artifact(carried_out or artifact, data, output, threads, reporter)
    finish(reporter, summary, json_output)
    if not json_output:
        print("\n".join(f"{key}: {value}" for key, value in summary.items()))


@app.command(cls=BriefCommand, short_help="Times an artifact and each of its steps.")
def bench(
    artifact: Artifact,
    runs: Annotated[int, typer.Option(min=1, help="Inferences that are timed.")] = 200,
    threads: ThreadsOption = 1,
    batch: Annotated[int, typer.Option(min=1, help="Images per inference.")] = 1,
    quiet: Quiet = False,
    progress: ProgressForm = None,
    json_output: Json = False,
) -> None:
    """Times an artifact in a fresh process, and each of its steps."""
    from bitplan.artifact_commands import bench_artifact
    from bitplan.studies.files import trial_artifact

    reporter = reporter_for(quiet, json_output, progress)
    summary, table = bench_artifact(trial_artifact(artifact) or artifact, runs, threads, batch, reporter)
    reporter.show(table)
    finish(reporter, summary, json_output)


@app.command(cls=BriefCommand, short_help="One HTML page on a result, and its plots.")
def report(
    folder: Annotated[
        Path, typer.Argument(help="Folder that the main job, `plan` or `realise` filled, or a trial (out/study#17).")
    ] = Path("bitplan-out"),
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The page; plots go beside it. Without: FOLDER/report.html.")
    ] = None,
    compare: Annotated[
        Path | None, typer.Option("--compare", help="Another result folder, shown side by side.")
    ] = None,
    timed: Annotated[
        bool, typer.Option("--time", help="Time the artifact's layers here first, and keep that.")
    ] = False,
    quiet: Quiet = False,
    progress: ProgressForm = None,
    json_output: Json = False,
) -> None:
    """Writes one HTML page on a result, which works offline, and its plots as SVG and PNG.

    Only the folder's files are read; neither torch nor the network is needed."""
    from bitplan.report.command import make_report
    from bitplan.studies.files import trial_results

    reporter = reporter_for(quiet, json_output, progress)
    folder, other = trial_results(folder) or folder, compare and (trial_results(compare) or compare)
    finish(reporter, make_report(folder, output, other, timed, reporter), json_output)


@app.command(cls=BriefCommand, short_help="What this machine can do, and what is missing.")
def doctor(json_output: Json = False) -> None:
    """What this machine can do, which kernels are active, and what is missing."""
    from bitplan.doctor import examine, table

    findings = examine()
    reporter = reporter_for(False, json_output)
    if not json_output:
        reporter.show(table(findings))
    finish(reporter, findings, json_output)


def main() -> None:
    """Runs the command and turns errors into one line, or one JSON line, and an exit code."""
    try:
        code: Any = app(standalone_mode=False)
    except (BitplanError, ClickError, typer.Abort, KeyboardInterrupt, OSError) as error:
        _complain(error)
    except Exception as error:
        if form_asked(sys.argv) != JSON:
            raise  # nobody foresaw it: people get the whole traceback
        _complain(error)
    if code == INTERRUPTED:  # some versions of typer turn the interrupt into this code by themselves
        _complain(KeyboardInterrupt())
    sys.exit(code if isinstance(code, int) else 0)


def _complain(error: BaseException) -> NoReturn:
    """Says why, and exits."""
    failure = failure_of(error)
    complain(failure, sys.argv[1:])
    if isinstance(error, InfeasibleError) and "--json" in sys.argv:  # machines get their object in this case too
        print(json_text({"status": "infeasible", "message": str(error), **(error.details or {})}))
    sys.exit(failure.exit_code)
