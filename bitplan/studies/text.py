"""Studies for people: a line for each trial, and tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from bitplan.optimizer.study.rows import Row
from bitplan.targets import format_bytes


def line(row: Row, best: Sequence[Row]) -> str:
    """What a trial came to."""
    name = "the planner's own solution" if row.planner else f"trial {row.number}"
    if row.state != "complete":
        reason = (row.reason.splitlines() or [""])[0]
        return f"  {name}: {row.state} [dim]({escape(reason)})[/]"
    figures = _figures(row)
    broken = "" if row.counts else f" [yellow](over the limit on {', '.join(_broken(row))})[/]"
    good = " [green]best so far[/]" if any(other.number == row.number for other in best) else ""
    return f"  {name}: {figures}{broken}{good}"


def trials_table(rows: Sequence[Row], best: Sequence[Row]) -> Table:
    """All trials; bold: the best ones."""
    table = Table(title="trials", title_style="bold")
    knobs = list(dict.fromkeys(name for row in rows for name in row.settings))
    words = ("state", *knobs)  # only they may be wrapped: a figure that is cut says nothing
    for heading in ("trial", "state", "loss", "ms", "file", *knobs, "s"):
        table.add_column(heading, justify="left" if heading in words else "right", no_wrap=heading not in words)
    numbers = {row.number for row in best}
    for row in rows:
        state = "planner" if row.planner and row.state == "complete" else row.state
        cells = [str(row.number), state if row.counts or row.state != "complete" else "over limits"]
        cells += [_number(row.attributes.get("loss"), ".3g"), _number(row.attributes.get("latency"), ".3f")]
        size = row.attributes.get("bytes")
        cells.append("-" if size is None else format_bytes(size))
        cells += [escape(_setting(row.settings.get(name))) for name in knobs]
        table.add_row(*cells, _number(row.seconds, ".1f"), style="bold" if row.number in numbers else "")
    return table


def verdict(found: Mapping[str, Any]) -> str:
    """Whether the study beat the planner."""
    states = found["trials"]
    counts = f"{states['complete']} trials complete, {states['pruned']} pruned, {states['fail']} failed"
    planner, best = found["planner"], found["best"] or next(iter(found["front"] or []), None)
    if planner is None or best is None:
        return f"{counts}; none of them keeps the limits"
    if found["beats_planner"] is None:
        return f"{counts}; the planner's own solution is not complete"
    if not found["beats_planner"]:
        return f"{counts}; none beats the planner's own solution ({_values(planner)})"
    text = f"{counts}; the planner's own solution ({_values(planner)}) is beaten"
    if "gain" in found:
        text += f": the loss is lower by {found['gain']:.4g} (paired standard error {found['gain_standard_error']:.2g})"
    return text


def _values(row: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in row["values"].items())


def _figures(row: Row) -> str:
    found = row.attributes
    latency = "" if found.get("latency") is None else f", {found['latency']:.3f} ms"
    return f"loss {found['loss']:.4g}{latency}, {format_bytes(found['bytes'])}"


def _broken(row: Row) -> list[str]:
    return [name for name, value in row.constraints.items() if value > 0]


def _setting(value: Any) -> str:
    return "-" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
