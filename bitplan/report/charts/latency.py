"""Predicted against measured milliseconds: of whole networks, and of the layers of the plan."""

from __future__ import annotations

from typing import Any

from bitplan.report.charts.layers import shortened
from bitplan.report.charts.scales import linear, linear_marks, log_marks, logarithmic, mark_texts, padded, spread
from bitplan.report.drawing import END, MIDDLE, Circle, Drawing, Line, Mark, Polygon, Shape, Text
from bitplan.report.text import signed_share, significant, written

WIDTH, LEFT, RIGHT, ROW, TOP = 760, 150, 80, 30, 40
SIDE, EDGE = 400, 56


def networks_chart(facts: dict[str, Any]) -> Drawing | None:
    """Predicted and measured milliseconds of every network that was timed; None where there is none."""
    rows = [row for row in facts["networks"] if row["measured_latency_ms"] is not None]
    if not rows:
        return None
    largest = 1.05 * max(max(row["predicted_latency_ms"] or 0, row["measured_latency_ms"]) for row in rows)
    x, bottom = linear(0, largest, LEFT, WIDTH - RIGHT), TOP + ROW * len(rows)
    items: list[Shape | Mark] = [
        Circle(LEFT + 5, 10, 4.5, "paper", "ours", 2),
        Text(LEFT + 15, 14, "predicted", fill="muted", size=11),
        _diamond(LEFT + 90, 10),
        Text(LEFT + 100, 14, "measured", fill="muted", size=11),
        Text(WIDTH, 14, "error", END, "muted", 11),
    ]
    marks = linear_marks(0, largest)
    for value, text in zip(marks, mark_texts(marks), strict=True):
        items.append(Line([(x(value), TOP - 12), (x(value), bottom)]))
        items.append(Text(x(value), bottom + 16, text, MIDDLE, "muted", 11))
    items.append(Text(WIDTH - RIGHT, bottom + 34, "milliseconds of one inference", END, "muted", 11))
    for number, row in enumerate(rows):
        y = TOP + number * ROW + ROW / 2 - 6
        before, after = row["predicted_latency_ms"], row["measured_latency_ms"]
        label = f"{row['name']}: predicted {written(before, 'ms')}, measured {significant(after)} ms"
        shapes: list[Shape] = [Text(0, y + 4, shortened(row["name"]), bold=row is facts["networks"][-1])]
        if before is not None:
            shapes.append(Line([(x(before), y), (x(after), y)], "muted", 2))
            shapes.append(Circle(x(before), y, 5.5, "paper", "ours", 2))
        shapes.append(_diamond(x(after), y))
        if row["error"] is not None:
            label += f", {signed_share(row['error'])}"
            shapes.append(Text(WIDTH, y + 4, signed_share(row["error"]), END))
        items.append(Mark(label, shapes))
    described = f"Predicted and measured milliseconds of {len(rows)} networks."
    return Drawing("latency", "Predicted and measured latency", described, WIDTH, bottom + 42, items)


def steps_chart(facts: dict[str, Any]) -> Drawing | None:
    """Measured over predicted milliseconds of the layers; None where they were not timed."""
    rows = [row for row in facts["layers"] if row["predicted_ms"] and row["measured_ms"]]
    if not rows:
        return None
    low, high = padded([row[key] for row in rows for key in ("predicted_ms", "measured_ms")])
    x, y = logarithmic(low, high, EDGE, SIDE - 12), logarithmic(low, high, SIDE - EDGE, 28)
    items: list[Shape | Mark] = [Text(0, 12, "measured, ms", fill="muted", size=11)]
    for value in spread(log_marks(low, high), x, 44):
        items.append(Line([(EDGE, y(value)), (SIDE - 12, y(value))]))
        items.append(Line([(x(value), 28), (x(value), SIDE - EDGE)]))
        items.append(Text(EDGE - 6, y(value) + 4, f"{value:.3g}", END, "muted", 11))
        items.append(Text(x(value), SIDE - EDGE + 16, f"{value:.3g}", MIDDLE, "muted", 11))
    items.append(Text(SIDE - 12, SIDE - 14, "predicted, ms", END, "muted", 11))
    items.append(Line([(x(low), y(low)), (x(high), y(high))], "muted", 1.5))
    for row in rows:
        error = (row["measured_ms"] - row["predicted_ms"]) / row["predicted_ms"]
        label = (
            f"{row['name']}: predicted {significant(row['predicted_ms'])} ms, measured {significant(row['measured_ms'])} ms, "
            f"{signed_share(error)}"
        )
        items.append(Mark(label, [Circle(x(row["predicted_ms"]), y(row["measured_ms"]), 4.5, "ours", "paper")]))
    described = f"Measured over predicted milliseconds of {len(rows)} layers; on the line they are equal."
    return Drawing("layer-latency", "Predicted and measured latency of layers", described, SIDE, SIDE, items)


def _diamond(x: float, y: float, size: float = 6.0) -> Polygon:
    return Polygon([(x - size, y), (x, y - size), (x + size, y), (x, y + size)], "other", "paper")
