"""A frontier as a PNG: loss over bytes and over latency, uniform policies beside it. Needs the extra `plot`."""

from __future__ import annotations

import io
from math import isfinite
from pathlib import Path
from typing import Any

from bitplan.atomic_file import write_atomically
from bitplan.optimizer.frontier import Frontier
from bitplan.optimizer.frontier.file import summary


def write_picture(path: Path, frontier: Frontier, title: str) -> None:
    """Writes atomically. Raises ImportError where matplotlib is missing, OSError where writing fails."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

    rows = summary(frontier.points)
    timed = [row for row in rows if row["latency"] is not None]
    panels = [("file_bytes", 1e-3, "file, kB", "latency", "ms")]
    if timed:
        panels.append(("latency", 1.0, "predicted latency, ms", "file_bytes", "kB"))
    figure = Figure(figsize=(6.4 * len(panels), 4.8), layout="constrained")
    FigureCanvasAgg(figure)
    for number, (key, factor, label, other, unit) in enumerate(panels, 1):
        axes = figure.add_subplot(1, len(panels), number)
        ours = [row for row in rows if not row["uniform"] and row[key] is not None]
        shade = [(row[other] or 0) * (1e-3 if unit == "kB" else 1) for row in ours]
        shown = axes.scatter(
            [factor * row[key] for row in ours],
            [row["loss"] for row in ours],
            c=shade if timed else None,
            cmap="viridis" if timed else None,
            zorder=2,
            label="our plans",
        )
        if timed:
            figure.colorbar(shown, ax=axes, label=unit)
        _uniforms(axes, rows, key, factor)
        axes.set(xlabel=label, ylabel=f"predicted loss ({frontier.scale})", xscale="log")
        axes.set_yscale("symlog", linthresh=_smallest(rows))
        axes.set_ylim(bottom=-0.1 * _smallest(rows))
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 1.5, 2.0, 3.0, 5.0, 7.0)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.grid(alpha=0.3)
        axes.legend()
    figure.suptitle(title)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    write_atomically(path, buffer.getvalue())


def _uniforms(axes: Any, rows: list[dict[str, Any]], key: str, factor: float) -> None:
    labelled = False
    for row in rows:
        if row["uniform"] and row[key] is not None:
            place = (factor * row[key], row["loss"])
            named = "_" if labelled else "uniform policies"
            axes.scatter(*place, marker="x", color="tab:red", zorder=3, label=named)
            labelled = True
            axes.annotate(row["uniform"], place, xytext=(3, 3), textcoords="offset points", fontsize=6)


def _smallest(rows: list[dict[str, Any]]) -> float:
    """Below it the axis of losses is linear: a hundredth of the largest loss."""
    losses = [row["loss"] for row in rows if isfinite(row["loss"])]
    return max(max(losses, default=1.0) / 100, 1e-9)
