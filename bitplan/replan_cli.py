"""`optimize replan`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from bitplan.cli_options import Json, WithReport, configured
from bitplan.cli_places import replanned
from bitplan.cli_reporter import finish, reported
from bitplan.config import Config
from bitplan.progress import Reporter


def _config(options: dict[str, Any], path: Path | None, own: dict[str, Any]) -> Config:
    from bitplan.earlier_run import config_of

    return config_of(own["folder"], options, path)


@partial(configured, resolved=_config, place=replanned)
def replan(
    folder: Annotated[Path, typer.Argument(help="Output folder of a run with --finetune.")],
    config: Config,
    reporter: Reporter,
    with_report: WithReport = False,
    json_output: Json = False,
) -> None:
    """Measures a fine-tuned network anew and moves bytes between its layers where that lowers the loss.

    optimize replan out/ --budget 50kB

    Options stand over the configuration of the earlier run; results go to FOLDER/replanned unless -o names another
    folder. The network is trained further only with --finetune."""
    from bitplan.replanning import replan as carried_out
    from bitplan.stage_table import stage_table

    result = carried_out(folder, config, reporter)
    assert result.replanning is not None
    reporter.show(stage_table(result.replanning["stages"], "replanning"))
    if with_report:
        reported(config.output, reporter)
    for miss in result.misses:
        reporter.warn(f"missed: {miss}")
    reporter.say(f"[bold]{result.status}[/]: {result.artifact_path}")
    finish(reporter, result.to_json(), json_output)
    raise typer.Exit(result.exit_code)
