"""`optimize runs`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from bitplan.cli_options import Json, Quiet
from bitplan.cli_reporter import finish, reporter_for
from bitplan.errors import UsageError


def runs(
    folder: Annotated[Path, typer.Argument(help="Where to look; here by default.")] = Path(),
    depth: Annotated[int, typer.Option(min=0, help="How many folders below it.")] = 6,
    quiet: Quiet = False,
    json_output: Json = False,
) -> None:
    """Lists the run folders below a folder, the newest first: what was asked, and what came of it."""
    from bitplan.runs.listing import DAMAGED, list_runs
    from bitplan.runs.text import runs_table

    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder; name one to look below for the outputs of runs")
    found = list_runs(folder, depth)
    reporter = reporter_for(quiet, json_output)
    for one in found:
        if one.status == DAMAGED:
            reporter.warn_plainly(f"{one.folder}: {one.reason}")
    if not json_output:
        reporter.show(runs_table(found))
        if not found:
            reporter.say("no command has left a result here; look elsewhere with: optimize runs FOLDER")
    finish(reporter, [asdict(one) for one in found], json_output)
