"""`optimize profile` and its sub-commands."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from bitplan.cli_completion import device_profiles, one_of
from bitplan.cli_help import BriefCommand, BriefGroup, brief
from bitplan.cli_options import Json, Quiet, configured, given_by_user
from bitplan.cli_places import profiled
from bitplan.cli_reporter import finish, reporter_for
from bitplan.config import Config
from bitplan.errors import UsageError
from bitplan.progress import Reporter

app = typer.Typer(
    cls=brief(BriefGroup, "model", "weights", "data", "encodings", "recovery", "output"),
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

Profile = Annotated[
    Path,
    typer.Argument(help="An .arrow file, or a name (optimize profile list).", autocompletion=one_of(device_profiles)),
]


@app.callback(invoke_without_command=True)
@partial(configured, place=profiled)
def profile(config: Config, reporter: Reporter, json_output: Json = False) -> None:
    """Measures this machine and this network, and stores both profiles and the network in the output folder.

    The sub-commands are about device profiles alone: files that travel from the machine they were recorded on to where
    plans are made."""
    from bitplan.atomic_file import write_atomically
    from bitplan.network_file import network_to_json
    from bitplan.planning_commands import HYBRID_PROFILES
    from bitplan.profiling import device_profile, loss_profile
    from bitplan.trained import load_trained
    from bitplan.workflow import DEVICE, LOSS, NETWORK, check_output

    if config.hybrid:
        raise UsageError(f"profiles {HYBRID_PROFILES}; run `optimize --hybrid` with the same model and data")
    check_output(config.output)
    trained = load_trained(config, reporter)
    device_path, loss_path = config.output / DEVICE, config.output / LOSS
    device_profile(trained, config, reporter).save(device_path)
    loss_profile(trained, config, reporter).save(loss_path)
    write_atomically(config.output / NETWORK, network_to_json(trained.network).encode())
    paths = {
        "device_profile": str(device_path),
        "loss_profile": str(loss_path),
        "network": str(config.output / NETWORK),
    }
    reporter.say(f"stored {', '.join(paths.values())}; plan from them with: optimize plan {config.output}")
    finish(reporter, paths, json_output)


@app.command(cls=brief(BriefCommand, "networks", "model", "encodings", "output", "json_output"))
@configured
def device(
    context: typer.Context,
    config: Config,
    reporter: Reporter,
    networks: Annotated[
        list[Path] | None,
        typer.Argument(help="Network files, or folders that `optimize profile` filled. Without: typical layers."),
    ] = None,
    json_output: Json = False,
) -> None:
    """Times this machine, for the library and for the file -o my-board.arrow; needs no torch.

    Steps that the library's profile of this machine has are not timed again. Without a network and a model, typical
    layers are timed, from which those of other networks are estimated."""
    from bitplan.device_commands import record

    found = record(networks or (), config.output if given_by_user(context, "output") else None, config, reporter)
    where = found["device_profile"]
    reporter.say(
        f"{found['steps']} steps in {where}; plan with it, here or elsewhere: optimize plan FOLDER --device {where}"
    )
    finish(reporter, found, json_output)


@app.command("list", cls=BriefCommand)
def list_profiles(quiet: Quiet = False, json_output: Json = False) -> None:
    """The device profiles of the library, and which of them hold for this machine."""
    from bitplan.device_commands import listed
    from bitplan.device_text import library_table
    from bitplan.profiles.library import default_folder

    found = listed()
    reporter = reporter_for(quiet, json_output)
    if not json_output:
        reporter.show(library_table(found, str(default_folder())))
    finish(reporter, found, json_output)


@app.command(cls=brief(BriefCommand, "profile", "network", "accuracy", "encodings", "json_output"))
@configured
def show(
    profile: Profile,
    config: Config,
    reporter: Reporter,
    network: Annotated[
        Path | None, typer.Option("--network", help="Network file or folder: which of its steps are estimates.")
    ] = None,
    accuracy: Annotated[
        bool, typer.Option("--accuracy", help="How well layers are estimated whose shape is left out.")
    ] = False,
    json_output: Json = False,
) -> None:
    """What a device profile holds, and whether it is stale."""
    from bitplan.device_commands import shown
    from bitplan.device_text import profile_tables

    found = shown(profile, network, accuracy, config)
    if not json_output:
        reporter.show(profile_tables(found))
    finish(reporter, found, json_output)


@app.command(cls=BriefCommand)
def diff(first: Profile, second: Profile, quiet: Quiet = False, json_output: Json = False) -> None:
    """How two device profiles differ: their machines, and the time of the steps that both have."""
    from bitplan.device_commands import compared
    from bitplan.device_text import comparison_tables

    found = compared(first, second)
    reporter = reporter_for(quiet, json_output)
    if not json_output:
        reporter.show(comparison_tables(found))
    finish(reporter, found, json_output)


@app.command(cls=BriefCommand)
def merge(
    profiles: Annotated[
        list[Path], typer.Argument(help="Two or more, of one machine and its kernels; later ones win.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="The merged file, my-board.arrow.")],
    quiet: Quiet = False,
    json_output: Json = False,
) -> None:
    """Makes one device profile of several, brought to one level of speed by their anchors."""
    from bitplan.device_commands import merged

    found = merged(profiles, output)
    reporter = reporter_for(quiet, json_output)
    reporter.say(f"{found['steps']} steps in {found['device_profile']}")
    finish(reporter, found, json_output)
