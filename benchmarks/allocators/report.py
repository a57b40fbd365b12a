"""Rows as Markdown tables and as a plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .rows import distinct, scores

Rows = Sequence[Mapping[str, Any]]


def markdown(rows: Rows) -> str:
    """Every comparison, then how often ours is better."""
    lines = [
        "| network | budget | peer | file | KL theirs | KL ours | gain (s.e.) | accuracy theirs | ours | entry |",
        "|---|---:|---|---:|---:|---:|---:|---:|---:|---|",
    ]
    for one in distinct(rows):
        for entry, ours in one["ours"].items():
            lines.append(
                f"| {one['network']} | {one['budget_bits_per_weight']:g} | {one['peer']} | {one['bytes']:,} "
                f"| {one['kl']:.4f} | {ours['kl']:.4f} | {ours['kl_gain']:+.4f} ({ours['kl_gain_standard_error']:.4f}) "
                f"| {100 * one['accuracy']:.2f} % | {100 * ours['accuracy']:.2f} % | {entry} |"
            )
    lines += ["", "| network | peer | entry | lower KL | within 1 s.e. | higher | KL ours / theirs |"]
    lines += ["|---|---|---|---:|---:|---:|---:|"]
    for score in scores(rows):
        lines.append(
            f"| {score.network} | {score.peer} | {score.entry} | {score.better} of {score.budgets} | {score.within} "
            f"| {score.worse} | {score.ratio:.2f} |"
        )
    return "\n".join(lines)


def plot(rows: Rows, file: Path) -> None:
    """KL over file size, one panel for each network. Raises ImportError without matplotlib."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = list(dict.fromkeys(one["network"] for one in rows))
    figure, panels = pyplot.subplots(1, len(names), figsize=(6 * len(names), 4.5), layout="constrained", squeeze=False)
    for axes, name in zip(panels[0], names, strict=True):
        here = [one for one in rows if one["network"] == name]
        for peer in dict.fromkeys(one["peer"] for one in here):
            _line(axes, peer, [one for one in here if one["peer"] == peer], "--")
        for entry in dict.fromkeys(entry for one in here for entry in one["ours"]):
            _line(axes, f"ours, {entry}", [one["ours"][entry] for one in here if entry in one["ours"]], "-")
        axes.set(title=name, xlabel="file, kB", ylabel="KL to full precision, test images", yscale="log")
        axes.legend()
    figure.savefig(file, dpi=150)


def _line(axes: Any, label: str, points: Rows, style: str) -> None:
    ordered = sorted({(point["bytes"] / 1e3, max(point["kl"], 1e-6)) for point in points})
    axes.plot(*zip(*ordered, strict=True), style, marker="o", markersize=4, label=label)
