"""Events as JSON, one on a line, as schema.json describes them."""

from __future__ import annotations

from typing import TextIO

from bitplan.progress.events import DETAIL, ENDED, PROGRESS, Event
from bitplan.progress.pace import Pace
from bitplan.progress.valid_json import json_text

INTERVAL = 1.0
"""Seconds between two lines on the progress of one stage."""


class JsonLines:
    """Writes and flushes a line for every event; details only if `verbose`."""

    def __init__(self, stream: TextIO, verbose: bool = False) -> None:
        self._stream, self._verbose = stream, verbose
        self._pace = Pace(INTERVAL)

    def __call__(self, event: Event) -> None:
        if event.name == DETAIL and not self._verbose:
            return
        if event.name == PROGRESS and not self._pace.due(event):
            return
        if event.name == ENDED:
            self._pace.forget(event)
        print(json_text(event.to_json()), file=self._stream, flush=True)
