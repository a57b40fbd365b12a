"""What a command says, and to whom: the reporter of a command line, and its last words."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from bitplan.failure import Failure
from bitplan.progress import AUTO, FORMS, JSON, Reporter
from bitplan.progress.valid_json import json_text
from bitplan.user_code import PRINTED


def _known(value: str | None) -> str | None:
    if value is not None and value not in FORMS:
        raise typer.BadParameter(f"{value!r} is none of {', '.join(FORMS)}")
    return value


ProgressForm = Annotated[
    str | None,
    typer.Option(
        "--progress",
        help=f"On standard error: {', '.join(FORMS)} (JSON lines; with --json the default).",
        callback=_known,
        rich_help_panel="How",
        hidden=True,
    ),
]


def reporter_for(quiet: bool, json_output: bool, progress: str | None = None, verbose: bool = False) -> Reporter:
    """`json_output`: JSON lines unless `progress` names another form."""
    return Reporter(quiet=quiet, form=progress or (JSON if json_output else AUTO), verbose=verbose)


@contextmanager
def others_heard(reporter: Reporter) -> Iterator[None]:
    """What libraries and the user's code warn of or log, and all that the logger `bitplan` is told, go through the reporter
    for a while."""
    handler = _Forwarded(reporter)
    root, logger = logging.getLogger(), logging.getLogger("bitplan")
    level, shown = logger.level, warnings.showwarning
    root.addHandler(handler)
    logger.setLevel(logging.DEBUG)

    def show(
        message: Warning | str, category: type[Warning], filename: str, lineno: int, file: Any = None, line: Any = None
    ) -> None:
        reporter.warn_plainly(f"{category.__name__}: {message} ({filename}:{lineno})")

    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = shown
        root.removeHandler(handler)
        logger.setLevel(level)


def finish(reporter: Reporter, found: Any, json_output: bool) -> None:
    """The result of a command: for those who listen, and with `--json` on standard output."""
    reporter.result(found)
    if json_output:
        print(json_text(found), flush=True)


def reported(folder: Path, reporter: Reporter) -> None:
    """The report page of a folder, as `optimize report FOLDER` writes it."""
    from bitplan.report.command import make_report

    make_report(folder, None, None, False, reporter)


def complain(failure: Failure, arguments: Sequence[str]) -> None:
    """Says why a command fails, in the form that its arguments ask for; they may be wrong themselves."""
    reporter = Reporter(form=form_asked(arguments))
    reporter.error(failure.text, failure.kind, failure.exit_code, **failure.more)


def form_asked(arguments: Sequence[str]) -> str:
    """The form of progress that a command line asks for, which may be wrong in other ways."""
    options = [*arguments, *(f"{option}={value}" for option, value in pairwise(arguments))]
    named = next((form for form in FORMS if f"--progress={form}" in options), None)
    return named or (JSON if "--json" in arguments else AUTO)


class _Forwarded(logging.Handler):
    def __init__(self, reporter: Reporter) -> None:
        super().__init__()
        self._reporter = reporter

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING:
            self._reporter.warn_plainly(record.getMessage())
        elif record.name == PRINTED:
            self._reporter.say(escape(record.getMessage()))
        elif record.name.partition(".")[0] == "bitplan":
            self._reporter.detail(record.getMessage())
