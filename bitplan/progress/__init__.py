"""Progress of long work on standard error: a bar with time left on a terminal, plain lines elsewhere, JSON lines for
machines."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console, RenderableType
from rich.markup import escape

from bitplan.progress.events import (
    BEGUN,
    DETAIL,
    DONE,
    ENDED,
    ERROR,
    FAILED,
    INTERRUPTED,
    MESSAGE,
    PROGRESS,
    RESULT,
    WARNING,
    WIDTH,
    Event,
    Listener,
    drawn,
    spoken,
)
from bitplan.progress.json_lines import JsonLines
from bitplan.progress.people import PlainLines, Terminal

Report = Callable[[int, int, str], None]
"""Called with (steps done, steps in total, what is being done)."""
AUTO, PLAIN, JSON = "auto", "plain", "json"
FORMS = (AUTO, PLAIN, JSON)
"""Of what is said: bars on a terminal and lines elsewhere; lines; JSON lines."""
TICK = 1.0
"""Seconds between two reports of a stage whose progress is the time that has passed."""


class Stage:
    """A stage of work that is going on: called with (done, total, doing) as its steps are done."""

    def __init__(self, emit: Listener, title: str, number: int) -> None:
        self._emit, self._about = emit, {"stage": title, "id": number}
        self._begun = time.monotonic()
        self._first: tuple[int, float] | None = None
        self._over = threading.Event()
        self._ticker: threading.Thread | None = None
        self._expected = (self._begun, 0.0)

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self._begun

    def __call__(self, done: int, total: int, doing: str = "") -> None:
        now = time.monotonic()
        if self._first is None or done < self._first[0]:
            self._first = done, now  # what an earlier run had done took this one no time
        before, since = self._first
        left = (total - done) * (now - since) / (done - before) if done > before else None
        self._report(done, total, "steps", doing, left)

    def takes(self, seconds: float) -> None:
        """For work that cannot tell how far it is: it takes this long from now, or at most. Time itself is its progress."""
        self._expected = (time.monotonic(), seconds)
        if self._ticker is None:
            self._ticker = threading.Thread(target=self._tick, daemon=True)
            self._ticker.start()

    def end(self, outcome: str) -> None:
        self._over.set()
        if self._ticker is not None:
            self._ticker.join()
        self._emit(Event(ENDED, {**self._about, "stage_seconds": round(self.seconds, 3), "outcome": outcome}))

    def _tick(self) -> None:
        while not self._over.wait(TICK):
            begun, expected = self._expected
            passed, total = time.monotonic() - begun, max(1, round(expected))
            self._report(min(int(passed), total), total, "seconds", "", max(expected - passed, 0.0))

    def _report(self, done: int, total: int, unit: str, doing: str, left: float | None) -> None:
        fields = {
            **self._about,
            "done": int(done),
            "total": int(total),
            "unit": unit,
            "doing": doing,
            "stage_seconds": round(self.seconds, 3),
            "seconds_left": None if left is None else round(left, 3),
        }
        self._emit(Event(PROGRESS, fields))


class Reporter:
    """Announces stages and their progress to people or machines, and to whoever listens. `quiet` says nothing at all on
    standard error, but listeners hear everything; `verbose` says details too."""

    def __init__(
        self, *, quiet: bool = False, form: str = AUTO, verbose: bool = False, listener: Listener | None = None
    ) -> None:
        self._listeners = [] if listener is None else [listener]
        self.form = form
        self._lock = threading.RLock()  # stages that report time do so from a thread of theirs
        self._stages = 0
        if not quiet:
            self._listeners.append(_shown(form, verbose))

    def say(self, text: str) -> None:
        """One line, with rich markup."""
        self._emit(spoken(MESSAGE, text))

    def warn(self, text: str) -> None:
        """What may be wrong, with rich markup."""
        self._emit(spoken(WARNING, text))

    def warn_plainly(self, text: str) -> None:
        """The same without markup: the words of others."""
        self.warn(escape(text))

    def detail(self, text: str) -> None:
        """What only -v shows; without markup."""
        self._emit(Event(DETAIL, {"text": text}))

    def show(self, content: RenderableType) -> None:
        """A table."""
        self._emit(drawn(content))

    def error(self, text: str, kind: str, exit_code: int, **more: Any) -> None:
        """Why the command fails; without markup. `kind` and `exit_code` as `failure_of` has them."""
        self._emit(Event(ERROR, {"text": text, "kind": kind, "exit_code": exit_code, **more}))

    def result(self, found: Any) -> None:
        """What `--json` prints, for those who listen."""
        self._emit(Event(RESULT, {"result": found}))

    @contextmanager
    def listened(self, listener: Listener) -> Iterator[None]:
        """Tells everything to one more listener for a while."""
        self._listeners.append(listener)
        try:
            yield
        finally:
            self._listeners.remove(listener)

    @contextmanager
    def stage(self, title: str, at_most: float | None = None) -> Iterator[Stage]:
        """A stage of work; yields the function to report progress with. `at_most`: seconds, for work that cannot tell how
        far it is."""
        self._stages += 1
        self._emit(Event(BEGUN, {"stage": title, "id": self._stages}))
        stage = Stage(self._emit, title, self._stages)
        if at_most is not None:
            stage.takes(at_most)
        outcome = FAILED
        try:
            yield stage
            outcome = DONE
        except KeyboardInterrupt:
            outcome = INTERRUPTED
            raise
        finally:
            stage.end(outcome)

    def _emit(self, event: Event) -> None:
        with self._lock:
            for listener in self._listeners:
                listener(event)


def duration(seconds: float) -> str:
    """About how long, for people."""
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _shown(form: str, verbose: bool) -> Listener:
    if form == JSON:
        return JsonLines(sys.stderr, verbose)
    console = Console(stderr=True, highlight=False)
    if console.is_terminal and form == AUTO:
        return Terminal(console, verbose)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = WIDTH
    return PlainLines(console, verbose)


__all__ = ["AUTO", "FORMS", "JSON", "PLAIN", "Report", "Reporter", "Stage", "duration"]
