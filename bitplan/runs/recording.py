"""Makes the output folder of a command a run folder: what it was asked, what it said and how it ended are kept there."""

from __future__ import annotations

import os
import platform
import shlex
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import typer

from bitplan import __version__
from bitplan.config import DEFAULT, Config, plain_values
from bitplan.failure import INFEASIBLE, failure_of
from bitplan.packages import OURS, installed, requirements
from bitplan.progress import Reporter
from bitplan.progress.events import DETAIL, ERROR, MESSAGE, RESULT, Event, stamp
from bitplan.runs.figures import STATUSES, figures_of
from bitplan.runs.log import LOG, RunLog, at_work
from bitplan.runs.record import DONE, FAILED, INTERRUPTED, Record, add, put
from bitplan.runs.secrets import redacted

EXIT_MISSED = 4


@dataclass(frozen=True)
class Asked:
    """What a command was called with: its name and command line, its own arguments (`value` and `from` by name), and the
    configuration."""

    command: str
    command_line: Sequence[str]
    arguments: Mapping[str, Any]
    config: Config


@contextmanager
def recorded(folder: Path, asked: Asked, reporter: Reporter) -> Iterator[None]:
    """Keeps record and log of the command that runs inside. Where they cannot be written the command runs without them:
    it says itself that its folder cannot be written, if it cannot."""
    busy = at_work(folder) if folder.is_dir() else False
    try:
        folder.mkdir(parents=True, exist_ok=True)
        log = RunLog(folder / LOG)
    except OSError:
        yield
        return
    run = _Run(folder, _begun(asked), log)
    try:
        run.begin(busy)
        with reporter.listened(run):
            yield
    except BaseException as error:
        run.end(*_outcome(error, run))
        raise
    else:
        run.end(run.status or DONE, 0, None)
    finally:
        log.close()


class _Run:
    """Listens to what the command says."""

    def __init__(self, folder: Path, record: Record, log: RunLog) -> None:
        self.folder, self.record, self.log = folder, record, log
        self.status: str | None = None
        self._since = time.monotonic()

    def __call__(self, event: Event) -> None:
        self.log(event)
        if event.name == RESULT and isinstance(found := event.fields["result"], Mapping):
            self.status = found["status"] if found.get("status") in STATUSES else None
            self.record = replace(self.record, figures=figures_of(found), targets=found.get("targets"))

    def begin(self, busy: bool | None) -> None:
        line = shlex.join(self.record.command_line)
        self.log(_said(f"---- {line} (bitplan {__version__}, process {self.record.process})"))
        self._kept(lambda: add(self.folder, self.record, busy))

    def end(self, status: str, exit_code: int, error: str | None) -> None:
        if error is not None:
            self.log(Event(ERROR, {"text": error}))
        seconds = time.monotonic() - self._since
        self.log(_said(f"---- {status}, exit code {exit_code}, after {seconds:.1f} s"))
        ended = replace(
            self.record,
            status=status,
            exit_code=exit_code,
            error=None if error is None else redacted(error),
            ended=stamp(datetime.now(UTC)),
            seconds=round(seconds, 3),
        )
        self._kept(lambda: put(self.folder, ended))

    def _kept(self, write: Callable[[], None]) -> None:
        """A record that cannot be written does not end the work of hours."""
        try:
            write()
        except OSError as error:
            self.log(Event(ERROR, {"text": f"the record of this run was not written: {error}"}))


def _outcome(error: BaseException, run: _Run) -> tuple[str, int, str | None]:
    """Status, exit code and text of what ends a command."""
    if isinstance(error, typer.Exit):
        code = int(error.exit_code)
        return (run.status or DONE) if code in (0, EXIT_MISSED) else FAILED, code, None
    failure = failure_of(error)
    if found := failure.more.get("traceback"):
        run.log(Event(DETAIL, {"text": found}))
    status = failure.kind if failure.kind in (INFEASIBLE, INTERRUPTED) else FAILED
    return status, failure.exit_code, failure.text


def _said(text: str) -> Event:
    return Event(MESSAGE, {"text": text})


def _begun(asked: Asked) -> Record:
    values, sources = plain_values(asked.config), asked.config.sources
    options = {name: {"value": value, "from": sources.get(name, DEFAULT)} for name, value in values.items()}
    return Record(
        id=uuid.uuid4().hex,
        command=asked.command,
        command_line=[redacted(part) for part in asked.command_line],
        cwd=str(Path.cwd()),
        process=os.getpid(),
        begun=stamp(datetime.now(UTC)),
        arguments=_without_secrets(asked.arguments),
        options=_without_secrets(options),
        versions=_versions(),
        machine=_machine(),
    )


def _without_secrets(value: Any) -> Any:
    if isinstance(value, str | Path):
        return redacted(str(value))
    if isinstance(value, Mapping):
        return {name: _without_secrets(item) for name, item in value.items()}
    return [_without_secrets(item) for item in value] if isinstance(value, list | tuple) else value


def _versions() -> dict[str, str]:
    """Of Python, bitplan and the packages that it works with, as far as they are installed."""
    named = {name: installed(name) for name, extras in requirements().items() if not extras or "torch" in extras}
    found = {OURS: __version__, "python": platform.python_version(), **named}
    return {name: version for name, version in found.items() if version is not None}


def _machine() -> dict[str, Any]:
    from bitplan.profiles.staleness import this_machine_if_known

    here = this_machine_if_known()
    found = {"system": platform.platform(), "cores": os.cpu_count()}
    if here is None:
        return found
    return found | {
        "cpu": here.cpu,
        "isa": here.isa,
        "kernel_version": here.kernel_version,
        "fingerprint": here.hash,
        "governor": here.governor,
    }
