"""`optimize report`: reads a result folder, and writes the page and the plots."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.markup import escape

from bitplan.atomic_file import write_atomically
from bitplan.errors import UsageError
from bitplan.progress import Reporter
from bitplan.report.charts import NAMES, charts
from bitplan.report.compare import compare_facts
from bitplan.report.drawing import svg
from bitplan.report.facts import Facts, report_facts
from bitplan.report.folder import HYBRID, Folder, read_folder
from bitplan.report.page import page
from bitplan.report.raster import png
from bitplan.report.step_times import STEP_TIMES, time_steps, write_step_times
from bitplan.workflow import ARTIFACT, LOAD

PAGE, PLOTS = "report.html", "plots"


def make_report(folder: Path, output: Path | None, other: Path | None, timed: bool, reporter: Reporter) -> Facts:
    """The facts of the report that was written to `output` (report.html in the folder without), with its plots in a folder
    beside it. `timed`: the artifact's steps are timed here first, and kept in the folder.

    Raises UsageError for folders without a result, FileFormatError for damaged ones and OSError where writing fails."""
    output = output or folder / PAGE
    if output.is_dir():
        raise UsageError(f"the output {output} is a folder; name a file to write, such as {output / PAGE}")
    if output.suffix != ".html":  # -o FOLDER/policy.json would destroy what the report is made of
        raise UsageError(
            f"the output {output} is written over if it exists, so its name must end in .html; name one such as report.html"
        )
    found = read_folder(folder)
    theirs = None if other is None else report_facts(read_folder(other))
    if timed:
        found = _with_times(found, reporter)
    facts = report_facts(found)
    if theirs is not None:
        facts["compare"] = compare_facts(facts, theirs)
    write_atomically(output, page(facts).encode())
    plots = output.with_name(f"{output.stem}-{PLOTS}")
    drawings = charts(facts)
    for name in NAMES:
        if drawing := drawings.get(name):
            write_atomically(plots / f"{name}.svg", svg(drawing, alone=True).encode())
            write_atomically(plots / f"{name}.png", png(drawing))
        else:  # an earlier report's would pass for this one's
            for kind in ("svg", "png"):
                (plots / f"{name}.{kind}").unlink(missing_ok=True)
    _say(facts, output, plots, len(drawings), reporter)
    return facts


def _with_times(found: Folder, reporter: Reporter) -> Folder:
    """The folder read again, with its artifact's steps timed here."""
    if found.artifact is None:
        raise UsageError(f"--time needs the artifact: {found.missing[ARTIFACT]}")
    if (found.path / LOAD).exists():
        raise UsageError(f"--time runs an artifact as a whole; {HYBRID}")
    settings: dict[str, Any] = dict(found.policy.settings)
    threads, batch = (int(settings.get(name) or 1) for name in ("threads", "batch"))
    times = time_steps(found.path / ARTIFACT, threads, batch, reporter)
    write_step_times(found.path / STEP_TIMES, times)
    return read_folder(found.path)


def _say(facts: Facts, output: Path, plots: Path, count: int, reporter: Reporter) -> None:
    for row in facts["missing"]:
        reporter.warn(escape(f"left out: {row['what']}: {row['why']}"))
    reporter.say(escape(f"written: {output}, and {count} plots as SVG and PNG in {plots}"))
