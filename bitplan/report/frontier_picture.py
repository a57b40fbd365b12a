"""A frontier as one PNG: loss over bytes and, where latencies are known, over milliseconds beside it."""

from __future__ import annotations

from bitplan.optimizer.frontier import Frontier
from bitplan.optimizer.frontier.file import summary
from bitplan.policies.policy_json import plain
from bitplan.report.charts.frontier import frontier_charts
from bitplan.report.raster import png

NOWHERE = {"file_bytes": None, "latency": None, "loss": None}
"""The place of a plan of its own: a frontier alone has none."""


def frontier_png(found: Frontier) -> bytes:
    """The bytes of the file. The drawings are those of the report, without a chosen point."""
    points = plain(summary(found.points), "frontier")
    shown = {"points": points, "loss_scale": found.scale, "chosen": None, "own": NOWHERE}
    return png(*frontier_charts({"frontier": shown, "targets": []}))
