"""The plots of a report, each a drawing made of its facts."""

from __future__ import annotations

from typing import Any

from bitplan.report.charts.compared import compared_chart
from bitplan.report.charts.frontier import frontier_charts
from bitplan.report.charts.latency import networks_chart, steps_chart
from bitplan.report.charts.layers import layers_chart
from bitplan.report.charts.pairs import pairs_chart
from bitplan.report.charts.recovery import recovery_chart
from bitplan.report.drawing import Drawing

NAMES = (
    "layers",
    "frontier-bytes",
    "frontier-latency",
    "pairs",
    "latency",
    "layer-latency",
    "recovery",
    "compared-layers",
)
"""Of all plots that there can be."""


def charts(facts: dict[str, Any]) -> dict[str, Drawing]:
    """All plots that the facts suffice for, by name."""
    single = (layers_chart, pairs_chart, networks_chart, steps_chart, recovery_chart, compared_chart)
    found = [*frontier_charts(facts), *(make(facts) for make in single)]
    return {drawing.name: drawing for drawing in found if drawing is not None}
