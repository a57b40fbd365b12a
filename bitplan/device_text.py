"""Device profiles as tables for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.markup import escape
from rich.table import Column, Table
from rich.text import Text

SHOWN_UNKNOWN = 5
"""Steps that can be neither found nor estimated, of which so many are printed."""


def _table(title: str, *headings: str) -> Table:
    """Long names go on in the next line: nothing is cut off."""
    return Table(*(Column(heading, overflow="fold") for heading in headings), title=title, box=SIMPLE_HEAD)


def library_table(found: Sequence[Mapping[str, Any]], folder: str) -> Table:
    """The profiles of the library, and those that come with bitplan."""
    title = f"device profiles in {escape(folder)}, and those that come with bitplan"
    table = _table(title, "name", "processor", "level", "kernels", "steps", "recorded", "")
    if all(one["comes_with_bitplan"] for one in found):
        table.caption = "none of your own yet; record one with: optimize profile device"
    for one in found:
        if "unreadable" in one:
            table.add_row(escape(one["name"]), "", "", "", "", "", f"[red]{escape(one['unreadable'])}[/]")
            continue
        words = escape(one["standing"])
        standing = f"[yellow]{words}[/]" if one["stale"] else words
        table.add_row(
            escape(one["name"]),
            escape(one["cpu"]),
            escape(one["isa"]),
            escape(one["kernel_version"]),
            _steps(one),
            escape(one["recorded"] or "-"),
            standing,
        )
    return table


def profile_tables(found: Mapping[str, Any]) -> Group:
    """What one profile holds."""
    machine = _table(escape(found["path"]), "", "")
    for name, value in found["machine"].items():
        text = ", ".join(value) if isinstance(value, list) else str(value)
        machine.add_row(name.replace("_", " "), escape(text) or "unknown")
    machine.add_row("recorded", escape(found["recorded"] or "unknown"))
    machine.add_row("anchor", f"{found['anchor_ms']:.3f} ms")
    machine.add_row("standing", escape(found["standing"]))
    kinds = _table("steps", "variant", "kernel", "threads", "batch", "steps")
    for kind in found["kinds"]:
        kinds.add_row(
            escape(kind["variant"]),
            escape(kind["kernel"] or "-"),
            str(kind["threads"]),
            str(kind["batch"]),
            _steps(kind),
        )
    parts: list[Table | Text] = [machine, kinds]
    if "network" in found:
        parts.append(_coverage(found["network"]))
    if "accuracy" in found and not found["accuracy"]:
        parts.append(Text("too few shapes were timed to tell how well others are estimated"))
    elif "accuracy" in found:
        accuracy = _table(
            "estimates of layers, each without its shape", "kernel", "steps", "error", "of 90 %", "within 15 %"
        )
        for row in found["accuracy"]:
            errors = (f"{100 * row[name]:.1f} %" for name in ("median", "high", "close"))
            accuracy.add_row(escape(row["kernel"]), str(row["steps"]), *errors)
        parts.append(accuracy)
    return Group(*parts)


def comparison_tables(found: Mapping[str, Any]) -> Group:
    """Two profiles side by side."""
    lines = [*found["differences"]] or ["the same machine, level and kernels"]
    lines.append(
        f"the anchor takes {found['anchor_ratio']:.2f} times as long in the second; {found['shared']} steps in both, "
        f"{found['only_first']} in the first only, {found['only_second']} in the second only"
    )
    table = _table("latency in the second / in the first", "variant", "kernel", "steps", "10 %", "median", "90 %")
    for kind in found["kinds"]:
        ratios = (f"{kind[name]:.2f}" for name in ("low", "median", "high"))
        table.add_row(escape(kind["variant"]), escape(kind["kernel"] or "-"), str(kind["steps"]), *ratios)
    return Group(*map(Text, lines), table)


def _steps(found: Mapping[str, Any]) -> str:
    return f"{found['steps']} ({found['estimated']} estimated)" if found["estimated"] else str(found["steps"])


def _coverage(found: Mapping[str, Any]) -> Text:
    bar = (
        ""
        if found["median_error_bar"] is None
        else f" (error bar {100 * found['median_error_bar']:.0f} % in the median)"
    )
    unknown = found["unknown"]
    counts = (
        f"of the {found['steps']} steps that the network's menu can need, {found['timed']} were timed, "
        f"{found['estimates']} are estimated{bar}, {len(unknown)} are unknown"
    )
    lines = [counts, *(f"  unknown: {step}" for step in unknown[:SHOWN_UNKNOWN])]
    return Text("\n".join(lines))
