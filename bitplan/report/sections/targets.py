"""Targets met or missed."""

from __future__ import annotations

from bitplan.report.drawing import Drawing
from bitplan.report.html import Figures, Html, element, table
from bitplan.report.sections.section import Section, note, section
from bitplan.report.text import BY_UNIT

MINIMISED = {"loss": "the loss", "bytes": "the size of the file", "latency": "the latency", "memory": "the memory"}


def targets(figures: Figures, drawings: dict[str, Drawing]) -> Section:
    """A row per limit, or that there are none."""
    facts = figures.facts
    minimised = MINIMISED[facts["objective"]]
    if not facts["targets"]:
        return section(
            "targets", "Targets", element("p", f"No limits were set; {minimised} was made as small as possible.")
        )
    rows: list[list[str | None]] = []
    for number, target in enumerate(facts["targets"]):
        style = BY_UNIT.get(target["unit"], "number")
        path = f"targets.{number}"
        rows.append(
            [
                target["name"],
                _met(target["met"]),
                figures(f"{path}.reached", style),
                figures(f"{path}.limit", style),
                figures(f"{path}.margin", "share"),
                target["basis"] or "not known",
            ]
        )
    heads = ["limit on", "", "reached", "at most", "to spare", "as"]
    return section(
        "targets",
        "Targets",
        element("p", f"Within these limits, {minimised} was made as small as possible."),
        table("Limits, and what was reached", heads, rows, texts=2),
        _latency_note(figures),
    )


def _met(met: bool | None) -> Html:
    if met is None:
        return element("span", "not known", class_="none")
    return element("span", "✓ met" if met else "✗ missed", class_="met" if met else "missed")


def _latency_note(figures: Figures) -> Html | None:
    if not figures.facts["provenance"]["measured_latency_ms"]:
        return None
    path = "provenance.measured_latency_ms"
    return note(
        "Latency is the median of one inference in a fresh process while the machine was least busy; 10 % and 90 % of the runs: ",
        figures(f"{path}.low", "ms"),
        " and ",
        figures(f"{path}.high", "ms"),
        ". The median of all runs is ",
        figures(f"{path}.median_of_all_runs", "ms"),
        "; the machine ran ",
        figures(f"{path}.drift", "number"),
        " times as slow as when it was profiled.",
    )
