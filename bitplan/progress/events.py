"""What a command says while it works: events, the same for people, for machines and for the log (schema.json)."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from rich.console import Console, RenderableType
from rich.text import Text

VERSION = 1
"""Of the schema; raised when a name or a meaning changes, not when fields are added."""
BEGUN, PROGRESS, ENDED = "stage_begun", "stage_progress", "stage_ended"
MESSAGE, WARNING, ERROR, DETAIL, RESULT = "message", "warning", "error", "detail", "result"
DONE, FAILED, INTERRUPTED = "done", "failed", "interrupted"
"""How a stage ends."""

WIDTH = 120
"""Columns of tables where no terminal says how wide it is."""
START = time.monotonic()
"""When this process began to count seconds."""


@dataclass(frozen=True)
class Event:
    """`fields` by name as schema.json has them; `shown` is what people see in place of the text, if that is more."""

    name: str
    fields: Mapping[str, Any]
    shown: RenderableType | None = None
    seconds: float = field(default_factory=lambda: time.monotonic() - START)
    when: datetime = field(default_factory=lambda: datetime.now(UTC))

    def to_json(self) -> dict[str, Any]:
        """One line of `--progress json`."""
        return {
            "event": self.name,
            "version": VERSION,
            "time": stamp(self.when),
            "seconds": round(self.seconds, 3),
            **self.fields,
        }

    @property
    def text(self) -> str:
        """The event in words, without markup."""
        return str(self.fields.get("text", ""))


Listener = Callable[[Event], None]


def stamp(when: datetime) -> str:
    """ISO 8601 in UTC, to the millisecond."""
    return when.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def spoken(name: str, markup: str) -> Event:
    """An event whose text has rich markup."""
    return Event(name, {"text": Text.from_markup(markup).plain}, markup)


def drawn(content: RenderableType) -> Event:
    """A table as a message."""
    buffer = io.StringIO()
    Console(file=buffer, width=WIDTH).print(content)
    return Event(MESSAGE, {"text": buffer.getvalue().rstrip()}, content)
