"""The list of runs for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from rich import box
from rich.console import JustifyMethod
from rich.markup import escape
from rich.table import Table

from bitplan.runs.listing import DAMAGED, Found
from bitplan.runs.record import FAILED, INTERRUPTED, RUNNING
from bitplan.targets import format_bytes

STYLES = {"met": "green", "missed": "yellow", RUNNING: "cyan", INTERRUPTED: "yellow", FAILED: "red", DAMAGED: "red"}
FIGURES = ("file", "ms", "accuracy", "loss")
NAMES = {"target_latency": "", "budget": "", "latency_ms": "", "bytes": "", "memory_bytes": "memory"}
"""What stands before a limit; its name where it is not here."""


def runs_table(found: Sequence[Found]) -> Table:
    """One row a folder."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in ("folder", "command", "targets", "status", "file", "ms", "accuracy", "loss", "when"):
        # Long folders and targets are folded, so that the rest stays legible on a narrow terminal.
        folded = heading in ("folder", "targets", "when")
        justify: JustifyMethod = "right" if heading in FIGURES else "left"
        table.add_column(heading, justify=justify, overflow="fold", no_wrap=not folded, min_width=6 if folded else None)
    for one in found:
        figures = one.figures
        worth = figures.get("accuracy", figures.get("agreement"))
        tilde = "" if figures.get("measured", True) else "~"
        status = f"[{STYLES.get(one.status, 'default')}]{escape(one.status)}[/]"
        table.add_row(
            escape(one.folder),
            escape(one.command),
            escape(targets_text(one.targets)),
            status,
            "-" if figures.get("bytes") is None else f"{tilde}{format_bytes(int(figures['bytes']))}",
            _number(figures.get("ms"), f"{tilde}{{:.3f}}"),
            "-" if worth is None else f"{100 * worth:.2f} %" + ("" if "accuracy" in figures else " *"),
            _number(figures.get("loss"), f"{tilde}{{:.4g}}"),
            _when(one),
        )
    if any("agreement" in one.figures and "accuracy" not in one.figures for one in found):
        table.caption = "~ predicted; * agreement with full precision"
    elif any(one.figures.get("measured") is False for one in found):
        table.caption = "~ predicted"
    return table


def targets_text(targets: Mapping[str, Any]) -> str:
    """Limits and objective, as `20ms, 2MB, smallest latency`."""
    parts = []
    for name, value in targets.items():
        if name == "objective":
            parts.append(f"least {value}")
            continue
        if name == "latency_ms":
            value = f"{value:.3f} ms"
        elif name in ("bytes", "memory_bytes"):
            value = format_bytes(int(value))
        parts.append(f"{NAMES.get(name, name.replace('_', ' '))} {value}".strip())
    return ", ".join(parts)


def _number(value: Any, form: str) -> str:
    return "-" if value is None else form.format(value)


def _when(one: Found) -> str:
    if one.begun is None:
        return "-"
    try:
        local = datetime.fromisoformat(one.begun).astimezone()
    except ValueError:
        return escape(one.begun)
    return f"{local:%Y-%m-%d %H:%M}"
