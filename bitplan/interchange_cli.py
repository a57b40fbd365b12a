"""`optimize export` and `optimize policy import`: to and from other tools (docs/interchange.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bitplan.cli_help import BriefCommand, BriefGroup, brief
from bitplan.cli_options import Json, Quiet, configured
from bitplan.cli_reporter import ProgressForm, finish, others_heard, reporter_for
from bitplan.config import Config
from bitplan.progress import Reporter

policy_app = typer.Typer(
    cls=BriefGroup,
    help="Policies from other tools.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def export(
    source: Annotated[
        Path, typer.Argument(help="A .bitplan file, result folder, policy.json or trial (out/study#17).")
    ] = Path("bitplan-out"),
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The file; without: network.onnx beside the artifact.")
    ] = None,
    int4: Annotated[
        str, typer.Option("--int4", help="int4 weights as packed 4-bit integers, or as int8, which runs faster.")
    ] = "packed",
    data: Annotated[
        str | None,
        typer.Option(
            "--data", help="Images that both runtimes are compared on; without, the result's own or random ones."
        ),
    ] = None,
    check: Annotated[bool, typer.Option(help="Compare with ONNX Runtime, if it is installed.")] = True,
    quiet: Quiet = False,
    progress: ProgressForm = None,
    json_output: Json = False,
) -> None:
    """Writes an artifact as an ONNX file that ONNX Runtime executes; needs no torch.

    int8 and int4 weights stay integers (QuantizeLinear, DequantizeLinear); what ONNX cannot hold becomes float32, as the
    table says.
    """
    from bitplan.onnx_export.command import export as run
    from bitplan.studies.files import trial_artifact

    reporter = reporter_for(quiet, json_output, progress)
    with others_heard(reporter):
        found = run(trial_artifact(source) or source, output, int4, data, check, reporter)
    finish(reporter, found, json_output)


@policy_app.command(
    "import",
    cls=brief(BriefCommand, "file", "source", "network", "rest", "model", "weights", "data", "output", "json_output"),
    short_help="Makes a policy of another tool's bits per layer.",
)
@configured
def import_(
    config: Config,
    reporter: Reporter,
    file: Annotated[Path, typer.Argument(help="JSON file of the other tool's assignment.")],
    source: Annotated[str, typer.Option("--from", help="Whose it is: mct or modelopt.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The policy file.")] = Path("imported.json"),
    network: Annotated[
        Path | None,
        typer.Option("--network", help="network.json, or the folder that has it, in place of --model and --data."),
    ] = None,
    rest: Annotated[
        str | None, typer.Option("--rest", help="What layers become that the file leaves open, such as int8.")
    ] = None,
    json_output: Json = False,
) -> None:
    """Makes a policy file of the bits per layer that Sony's MCT or NVIDIA's ModelOpt chose; `optimize realise` carries it out.

    optimize policy import modelopt.json --from modelopt --network bitplan-out -o policy.json
    """
    from bitplan.policy_import import import_policy

    finish(reporter, import_policy(file, source, output, network, rest, config, reporter), json_output)
