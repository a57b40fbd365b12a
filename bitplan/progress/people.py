"""Events for people: bars with the time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from bitplan.progress.events import (
    BEGUN,
    DETAIL,
    DONE,
    ENDED,
    ERROR,
    MESSAGE,
    PROGRESS,
    WARNING,
    Event,
)
from bitplan.progress.pace import Pace

LINE_INTERVAL = 10.0
"""Seconds between two plain lines of one stage."""


class _People:
    """What both forms have in common."""

    def __init__(self, console: Console, verbose: bool) -> None:
        self.console, self.verbose = console, verbose

    def said(self, event: Event) -> None:
        """Prints what is said outside of stages, and how they end."""
        fields = event.fields
        match event.name:
            case n if n == MESSAGE:
                self.line(event.shown if event.shown is not None else escape(event.text))
            case n if n == WARNING:
                self.line(f"[yellow]{event.shown}[/]")
            case n if n == DETAIL and self.verbose:
                self.line(f"[dim]{escape(event.text)}[/]")
            case n if n == ERROR:
                self.line(escape(f"optimize: {event.text}"))
            case n if n == ENDED:
                word = "[green]done[/]" if fields["outcome"] == DONE else f"[red]{fields['outcome']}[/]"
                self.line(f"{word} {escape(fields['stage'])} [dim]({fields['stage_seconds']:.1f} s)[/]")

    def line(self, content: RenderableType) -> None:
        """Text is never broken where no terminal says how wide it is."""
        self.console.print(content, soft_wrap=isinstance(content, str) and not self.console.is_terminal)


class PlainLines(_People):
    def __init__(self, console: Console, verbose: bool = False) -> None:
        super().__init__(console, verbose)
        self._pace = Pace(LINE_INTERVAL, ends=False)

    def __call__(self, event: Event) -> None:
        if event.name == BEGUN:
            self.line(escape(f"{event.fields['stage']} ..."))
        elif event.name == PROGRESS:
            if self._pace.due(event):
                self.line(f"  {escape(progress_text(event))}")
        else:
            self.said(event)
        if event.name == ENDED:
            self._pace.forget(event)


class Terminal(_People):
    """One bar for every stage that is going on, below what is said."""

    def __init__(self, console: Console, verbose: bool = False) -> None:
        super().__init__(console, verbose)
        self._bars: Progress | None = None
        self._tasks: dict[int, TaskID] = {}

    def __call__(self, event: Event) -> None:
        if event.name == BEGUN:
            if self._bars is None:
                self._bars = bars(self.console)
                self._bars.start()
            self._tasks[event.fields["id"]] = self._bars.add_task(escape(event.fields["stage"]), total=None, doing="")
        elif event.name == PROGRESS and self._bars is not None:
            fields = event.fields
            doing = "seconds" if fields["unit"] == "seconds" else escape(fields["doing"])
            self._bars.update(self._tasks[fields["id"]], completed=fields["done"], total=fields["total"], doing=doing)
        elif event.name == ENDED and self._bars is not None:
            self._bars.remove_task(self._tasks.pop(event.fields["id"]))
            if not self._tasks:
                self._bars.stop()
                self._bars = None
        self.said(event)


def bars(console: Console) -> Progress:
    columns = (
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("[dim]{task.fields[doing]}"),
    )
    return Progress(*columns, console=console, transient=True)


def progress_text(event: Event) -> str:
    """A report of progress as a line of text."""
    from bitplan.progress import duration

    fields = event.fields
    unit = " s" if fields["unit"] == "seconds" else ""
    doing = f" {fields['doing']}" if fields["doing"] else ""
    left = fields["seconds_left"]
    return f"{fields['stage']}: {fields['done']}/{fields['total']}{unit}{doing}" + (
        f", about {duration(left)} left" if left is not None else ""
    )
