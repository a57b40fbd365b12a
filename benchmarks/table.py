"""The results of against_peers.py as a Markdown table and a plot.

    python benchmarks/table.py RESULT.json [RESULT.json ...] [--plot FILE.png]

Figures are ratios ours / theirs, lower is better, unless the row says otherwise; by 10 % quantiles, and by medians in
brackets. Several files are read as one run, the later of two records counts. Bars come from bars.json.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.rows import Records, Row, rows, with_bars

BARS = Path(__file__).with_name("bars.json")


def read(files: Sequence[Path]) -> tuple[Records, list[dict[str, Any]]]:
    reports = [json.loads(file.read_text()) for file in files]
    records = [record for report in reports for record in report["records"]]
    return Records(records), [record for report in reports for record in report["memory"]]


def markdown(found: Sequence[Row]) -> str:
    lines = ["| what | bar | stretch | measured | command |", "|---|---:|---:|---:|---|"]
    for row in found:
        measured = f"{row.low:.3g} ({row.median:.3g})" if row.low != row.median else f"{row.low:.3g}"
        verdict = {None: "", True: " met", False: " **missed**"}[row.met] + (", stretch met" if row.stretch_met else "")
        lines.append(
            f"| {row.what} | {_limit(row, row.bar)} | {_limit(row, row.stretch)} | {measured}{verdict} | `{row.command}` |"
        )
    return "\n".join(lines)


def _limit(row: Row, limit: float | None) -> str:
    return "" if limit is None else f"{'≥' if row.higher else '≤'} {limit:g}"


def plot(found: Sequence[Row], file: Path) -> None:
    """A line of dots: measured figures, on a logarithmic axis, with their bars as ticks."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(10, 1 + 0.22 * len(found)), layout="constrained")
    places = range(len(found))
    colours = [{None: "tab:blue", True: "tab:green", False: "tab:red"}[row.met] for row in found]
    axes.hlines(places, 1, [row.low for row in found], color="lightgrey")
    axes.scatter([row.low for row in found], places, c=colours, label="measured", zorder=3)
    bars = [(row.bar, place) for row, place in zip(found, places, strict=True) if row.bar]
    if bars:
        limits, at = [limit for limit, _ in bars], [place for _, place in bars]
        axes.scatter(limits, at, marker="|", c="black", s=80, label="bar", zorder=4)
    axes.axvline(1, color="grey", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_yticks(list(places), [row.what for row in found], fontsize=7)
    axes.invert_yaxis()
    axes.set_xlabel("ours / theirs (lower is better unless the row says otherwise)")
    axes.legend(loc="lower right")
    figure.savefig(file, dpi=150)


def show_results(files: Sequence[Path], picture: Path | None = None) -> None:
    """Prints the table and writes the plot, by default beside the last file."""
    found = with_bars(rows(*read(files)), BARS)
    if not found:
        print("nothing to compare: were the peers installed? pip install 'bitplan[bench]'", file=sys.stderr)
        return
    print(markdown(found))
    try:
        plot([row for row in found if row.low > 0], picture or files[-1].with_suffix(".png"))
    except ImportError:
        print("no plot: matplotlib is not installed; pip install 'bitplan[bench]'", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="+", type=Path)
    parser.add_argument("--plot", type=Path, help="default: beside the last result; needs matplotlib")
    arguments = parser.parse_args()
    show_results(arguments.results, arguments.plot)


if __name__ == "__main__":
    main()
