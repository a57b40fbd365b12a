"""How often the progress of a stage is told."""

from __future__ import annotations

from bitplan.progress.events import Event


class Pace:
    """Lets one report of a stage through every `interval` seconds, and its first and last step whenever they come."""

    def __init__(self, interval: float, ends: bool = True) -> None:
        self._interval, self._ends = interval, ends
        self._last: dict[int, float] = {}

    def due(self, event: Event) -> bool:
        """Whether this report of progress is to be told."""
        number, fields = event.fields["id"], event.fields
        last = self._last.get(number, None if self._ends else event.seconds - fields["stage_seconds"])
        complete = self._ends and fields["unit"] == "steps" and fields["done"] == fields["total"]
        if last is not None and not complete and event.seconds - last < self._interval:
            return False
        self._last[number] = event.seconds
        return True

    def forget(self, event: Event) -> None:
        """The stage has ended."""
        self._last.pop(event.fields["id"], None)
