"""The trade-off: predicted loss over bytes and over milliseconds, with the chosen point and the targets."""

from __future__ import annotations

from typing import Any

from bitplan.report.charts.scales import Place, log_marks, logarithmic, padded, rising, rising_marks
from bitplan.report.drawing import END, MIDDLE, Circle, Drawing, Line, Mark, Polygon, Shape, Text
from bitplan.report.text import significant, written

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 372, 312, 50, 12, 30, 44
CHOSEN, DIAMOND = 8.0, 4.5


def frontier_charts(facts: dict[str, Any]) -> list[Drawing]:
    """Loss over bytes, and over milliseconds where latencies are known."""
    found = facts["frontier"]
    if found is None:
        return []
    limits = {target["name"]: target["limit"] for target in facts["targets"]}
    return [
        drawing
        for drawing in (
            _panel(found, "file_bytes", "frontier-bytes", "file, kB", 1e-3, limits.get("file")),
            _panel(found, "latency", "frontier-latency", "predicted latency, ms", 1.0, limits.get("latency")),
        )
        if drawing is not None
    ]


def _panel(
    found: dict[str, Any], key: str, name: str, label: str, factor: float, limit: float | None
) -> Drawing | None:
    points = [point for point in found["points"] if point[key] and point["loss"] is not None]
    if not points:
        return None
    own = found["own"]
    apart = found["chosen"] is None and own[key] and own["loss"] is not None
    shown = [*points, *([own] if apart else [])]
    low, high = padded([point[key] for point in shown])
    largest = max([point["loss"] for point in shown] + [1e-12])
    x, y = logarithmic(low, high, LEFT, WIDTH - RIGHT), rising(largest, HEIGHT - BOTTOM, TOP)
    items: list[Shape | Mark] = [*_axes(x, y, (low, high), largest, label, factor, found["loss_scale"])]
    if limit and low <= limit <= high:
        items.append(Line([(x(limit), TOP), (x(limit), HEIGHT - BOTTOM)], "muted"))
        items.append(Text(x(limit) + 4, TOP + 9, "target", fill="muted", size=10))
    items += [_mark(point, x(point[key]), y(point["loss"]), point["name"] == found["chosen"]) for point in points]
    if apart:
        items.append(_own(own, x(own[key]), y(own["loss"])))
    plans = sum(not point["uniform"] for point in points)
    described = (
        f"Predicted loss over {label.split(',')[0]}: {plans} plans as circles and {len(points) - plans} uniform policies "
        f"as diamonds. {_where(found, apart)}"
    )
    return Drawing(name, f"Loss over {label.split(',')[0]}", described, WIDTH, HEIGHT, items)


def _where(found: dict[str, Any], apart: bool) -> str:
    if found["chosen"] is not None:
        return f"The chosen point is {found['chosen']}."
    return "The plan is none of the points; a triangle shows where it lies." if apart else "The plan is none of them."


def point_label(point: dict[str, Any]) -> str:
    """A point in words."""
    parts = [
        f"{point['name']}: {point['file_bytes']:,} bytes",
        written(point["latency"], "ms"),
        f"predicted loss {written(point['loss'], 'number')}",
    ]
    if point["dominated_by"]:
        parts.append(f"dominated by {point['dominated_by']}")
    elif point["efficient"]:
        parts.append("proven that nothing dominates it")
    return ", ".join(parts)


def _axes(
    x: Place, y: Place, ends: tuple[float, float], largest: float, label: str, factor: float, scale: str
) -> list[Shape]:
    shapes: list[Shape] = [Text(0, 12, f"predicted loss ({scale})", fill="muted", size=11)]
    for value in rising_marks(largest):
        shapes.append(Line([(LEFT, y(value)), (WIDTH - RIGHT, y(value))]))
        shapes.append(Text(LEFT - 6, y(value) + 4, significant(value, 1) if value else "0", END, "muted", 11))
    last = -100.0
    for value in log_marks(*ends):
        if x(value) - last < 34:  # pixels that two labels need
            continue
        last = x(value)
        shapes.append(Line([(last, TOP), (last, HEIGHT - BOTTOM)]))
        shapes.append(Text(last, HEIGHT - BOTTOM + 16, f"{factor * value:,.4g}", MIDDLE, "muted", 11))
    shapes.append(Text(WIDTH - RIGHT, HEIGHT - 8, label, END, "muted", 11))
    return shapes


def _mark(point: dict[str, Any], x: float, y: float, chosen: bool) -> Mark:
    shapes: list[Shape] = []
    if point["uniform"]:
        corners = [(x - DIAMOND, y), (x, y - DIAMOND), (x + DIAMOND, y), (x, y + DIAMOND)]
        shapes.append(Polygon(corners, "other", "paper"))
        shapes.append(Text(x + 6, y - 5, point["uniform"].partition(":")[0], fill="other", size=9))
    else:
        shapes.append(Circle(x, y, 3.5, "ours", "paper"))
    if chosen:
        shapes.append(Circle(x, y, CHOSEN, "", "ink", 2))
        shapes.append(Text(x - CHOSEN - 4, y + 14, "chosen", END, "ink", 11, bold=True))
    label = point_label(point) + (", the chosen point" if chosen else "")
    return Mark(label, shapes)


def _own(own: dict[str, Any], x: float, y: float) -> Mark:
    corners = [(x, y - 7), (x + 7, y + 5), (x - 7, y + 5)]
    label = (
        f"this plan: {own['file_bytes']:,} bytes, {written(own['latency'], 'ms')}, "
        f"predicted loss {written(own['loss'], 'number')}"
    )
    return Mark(
        label, [Polygon(corners, "ink", "paper"), Text(x - 10, y + 16, "this plan", END, "ink", 11, bold=True)]
    )
