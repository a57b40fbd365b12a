"""Progress of long work on standard error: a bar with time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

Report = Callable[[int, int, str], None]
"""Called with (steps done, steps in total, what is being done)."""

LINE_INTERVAL = 10.0
"""Seconds between two plain lines of one stage."""


class Reporter:
    """Announces stages and their progress; `quiet` says nothing at all."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.console = Console(stderr=True, quiet=quiet, highlight=False)

    def say(self, text: str) -> None:
        """One line, with rich markup."""
        self.console.print(text)

    @contextmanager
    def stage(self, title: str) -> Iterator[Report]:
        """A stage of work; yields the function to report progress with."""
        start = time.monotonic()
        if self.console.is_terminal and not self.console.quiet:
            columns = (
                TextColumn("[bold]{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                TextColumn("[dim]{task.fields[doing]}"),
            )
            with Progress(*columns, console=self.console, transient=True) as bar:
                task = bar.add_task(title, total=None, doing="")
                yield lambda done, total, doing: bar.update(task, completed=done, total=total, doing=doing)
        else:
            yield _plain_lines(self.console, title)
        self.say(f"[green]done[/] {title} [dim]({time.monotonic() - start:.1f} s)[/]")


def duration(seconds: float) -> str:
    """About how long, for people."""
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _plain_lines(console: Console, title: str) -> Report:
    console.print(f"{title} ...")
    last = time.monotonic()

    def report(done: int, total: int, doing: str) -> None:
        nonlocal last
        if time.monotonic() - last >= LINE_INTERVAL:
            last = time.monotonic()
            console.print(f"  {title}: {done}/{total} {doing}".rstrip())
            sys.stderr.flush()

    return report
