"""The `optimize` command. Everything for people goes to standard error; `--json` puts one object on standard output."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from bitplan import __version__
from bitplan.cli_options import Json, Quiet, configured
from bitplan.config import Config
from bitplan.errors import BitplanError, InfeasibleError, UsageError
from bitplan.interchange_cli import export, policy_app
from bitplan.profile_cli import app as profile_app
from bitplan.progress import Reporter
from bitplan.replan_cli import replan
from bitplan.study_cli import app as study_app
from bitplan.study_cli import realised_config

INTERRUPTED = 130
ClickError: type[Exception] = typer.BadParameter.__mro__[2]
"""ClickException, of click or of the copy that newer versions of typer carry: an option or argument is wrong."""

app = typer.Typer(
    name="optimize",
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
@configured
def optimize(
    config: Config,
    reporter: Reporter,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Stop at the policy: nothing is carried out.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    json_output: Json = False,
) -> None:
    """The most accurate network that meets a latency target and a byte budget on this CPU, with proof.

    optimize --target-latency 20ms --budget 2MB --model pkg.mod:build --weights net.safetensors --data images.npz

    Without --model, and without an optimize.yaml in this folder, the embedded example is optimised.

    All options: --help-all. Afterwards: optimize report
    """
    if version:
        print(f"bitplan {__version__}")
        return
    from bitplan.workflow import optimise

    result = optimise(config, reporter, dry_run=dry_run)
    reporter.say("")
    if result.outcome is not None:
        reporter.console.print(result.table())
    for miss in result.misses:
        reporter.say(f"[red]missed: {miss}[/]")
    where = result.artifact_path or result.policy_path
    reporter.say(f"[bold]{result.status}[/]: {where}")
    if json_output:
        print(json.dumps(result.to_json()))
    raise typer.Exit(result.exit_code)


@app.command(short_help="Plans from stored profiles alone, without torch or device.")
@configured
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
    from bitplan.planning_commands import explained, output_of, stored
    from bitplan.policies.policy_file import write_policy
    from bitplan.result import PLANNED, Result
    from bitplan.workflow import POLICY

    kept = stored(folder, config, reporter)
    with reporter.stage("solving the integer program"):
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
    path = output_of(folder, config) / POLICY
    write_policy(path, policy)
    result = Result(PLANNED, config.targets, policy, kept.network, policy_path=path)
    reporter.say(f"{policy.certificate.status}; the policy is {path}; carry it out with: optimize realise {path}")
    if estimates := said_of_estimates(policy):
        reporter.say(estimates)
    explanation = explained(kept, policy, config, reporter) if explain else {}
    if json_output:
        print(json.dumps(result.to_json() | explanation))


@app.command(short_help="The whole trade-off of loss, latency and bytes.")
@configured
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

    found = compute_frontier(folder, config, points, reporter)
    if json_output:
        print(json.dumps(found))


@app.command(short_help="Carries a policy out and measures the artifact.")
@partial(configured, resolved=realised_config)
def realise(
    policy_file: Annotated[
        Path,
        typer.Argument(
            help="Policy file, hand-edited or not, a point of a frontier (frontier.arrow#p07), or a trial (out/study#17)."
        ),
    ],
    config: Config,
    reporter: Reporter,
    json_output: Json = False,
) -> None:
    """Carries a policy file out on the network and data given, and measures the artifact."""
    from bitplan.finetuning import check_finetune
    from bitplan.measured import with_predictions
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
    policy = policy_named(trial_named(policy_file) or policy_file)
    stages = stages_of(config)
    trained = stages.load(config, reporter)
    policy = validate_against(policy, trained.network)
    if policy.hashes.get("network", trained.network.content_hash) != trained.network.content_hash:
        reporter.say("[yellow]the policy was made for another network with layers of the same names[/]")
    path = profile_path(config.device_profile) if config.device_profile else default_path(this_machine())
    device = DeviceProfile.load(path) if path.exists() else None
    policy = with_predictions(policy, trained.network, device, config)
    targets = config.targets if config.targets != Targets() else policy.targets
    carried = stages.carry_out(trained, policy, config, reporter, device, name=policy_file.name)
    result, _ = judged_and_trained(targets, trained, carried, config, reporter, device)
    reporter.console.print(result.table())
    if json_output:
        print(json.dumps(result.to_json()))
    raise typer.Exit(result.exit_code)


app.command(short_help="Moves bytes between layers of a fine-tuned network.")(replan)
app.command(short_help="Writes an artifact as an ONNX file.")(export)

Artifact = Annotated[Path, typer.Argument(help="A .bitplan file.")]
DataOption = Annotated[str | None, typer.Option("--data", help="Images as for the main command; random ones without.")]
ThreadsOption = Annotated[int, typer.Option("--threads", min=1)]


@app.command(short_help="Executes an artifact on images.")
def run(
    artifact: Artifact,
    data: DataOption = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write the outputs to this .npz file.")] = None,
    threads: ThreadsOption = 1,
    quiet: Quiet = False,
    json_output: Json = False,
) -> None:
    """Executes an artifact (or the policy in a result folder) on images; prints classes, and accuracy with labels."""
    from bitplan.artifact_commands import is_policy, run_artifact
    from bitplan.policy_commands import artifact_of_policy

    reporter = Reporter(quiet=quiet)
    carried_out = artifact_of_policy(artifact, reporter) if is_policy(artifact) else None
    summary = run_artifact(carried_out or artifact, data, output, threads, reporter)
    print(json.dumps(summary) if json_output else "\n".join(f"{key}: {value}" for key, value in summary.items()))


@app.command(short_help="Times an artifact and each of its steps.")
def bench(
    artifact: Artifact,
    runs: Annotated[int, typer.Option(min=1, help="Inferences that are timed.")] = 200,
    threads: ThreadsOption = 1,
    batch: Annotated[int, typer.Option(min=1)] = 1,
    quiet: Quiet = False,
    json_output: Json = False,
) -> None:
    """Times an artifact in a fresh process, and each of its steps."""
    from bitplan.artifact_commands import bench_artifact

    summary, table = bench_artifact(artifact, runs, threads, batch)
    Reporter(quiet=quiet).console.print(table)
    if json_output:
        print(json.dumps(summary))


@app.command(short_help="One HTML page on a result, and its plots.")
def report(
    folder: Annotated[Path, typer.Argument(help="Folder that the main job, `plan` or `realise` filled.")] = Path(
        "bitplan-out"
    ),
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
    json_output: Json = False,
) -> None:
    """Writes one HTML page on a result, which works offline, and its plots as SVG and PNG.

    Only the folder's files are read; neither torch nor the network is needed."""
    from bitplan.report.command import make_report

    facts = make_report(folder, output, compare, timed, Reporter(quiet=quiet))
    if json_output:
        print(json.dumps(facts))


@app.command(short_help="What this machine can do, and what is missing.")
def doctor(json_output: Json = False) -> None:
    """What this machine can do, which kernels are active, and what is missing."""
    from bitplan.doctor import examine, table

    findings = examine()
    if json_output:
        print(json.dumps(findings))
    else:
        Reporter().console.print(table(findings))


def main() -> None:
    """Runs the command and turns errors into one line and an exit code."""
    try:
        code: Any = app(standalone_mode=False)
    except InfeasibleError as error:
        code = _complain(str(error), error.exit_code)
        if "--json" in sys.argv:  # machines get their object in this case too
            print(json.dumps({"status": "infeasible", "message": str(error), **(error.details or {})}))
    except BitplanError as error:
        code = _complain(str(error), error.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        code = INTERRUPTED
    except ClickError as error:
        code = _complain(getattr(error, "format_message", error.__str__)(), UsageError.exit_code)
    except OSError as error:
        place = f" ({error.filename})" if error.filename else ""
        code = _complain(f"{error.strerror or error}{place}; check the path, its permissions and the free space", 1)
    if code == INTERRUPTED:  # some versions of typer turn the interrupt into this code by themselves
        _complain("interrupted; what was measured is kept, run the same command again to go on", INTERRUPTED)
    sys.exit(code if isinstance(code, int) else 0)


def _complain(text: str, code: int) -> int:
    print(f"optimize: {text}", file=sys.stderr)
    return code
