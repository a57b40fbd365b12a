"""The trade-off: predicted loss over bytes and over milliseconds, with the chosen point and the targets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bitplan.report.charts.scales import Place, log_marks, logarithmic, mark_texts, padded, rising, rising_marks, spread
from bitplan.report.drawing import END, MIDDLE, START, Circle, Drawing, Line, Mark, Polygon, Shape, Text
from bitplan.report.text import significant, written

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 372, 312, 50, 12, 30, 44
CHOSEN, DIAMOND, LABEL, OWN_LETTER = 8.0, 4.5, 36.0, 6.8
"""Radius of the ring, half of a diamond, and the room that a label of an axis and a letter of the plan's name take."""


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
    items += [_mark(point, x(point[key]), y(point["loss"])) for point in points]
    ours = next((point for point in points if point["name"] == found["chosen"]), own if apart else None)
    uniform = [(point["uniform"], x(point[key]), y(point["loss"])) for point in points if point["uniform"]]
    caption = None
    if ours:
        others = [(x(point[key]), y(point["loss"])) for point in points if point is not ours]
        caption = _own_name("this plan" if apart else "chosen", x(ours[key]), y(ours["loss"]), others)
    items += _names(uniform, caption)
    if ours and caption:
        items.append((_own if apart else _chosen)(ours, x(ours[key]), y(ours["loss"]), caption))
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
    marks = spread(log_marks(*ends), x, LABEL)
    for value, text in zip(marks, mark_texts([factor * mark for mark in marks]), strict=True):
        shapes.append(Line([(x(value), TOP), (x(value), HEIGHT - BOTTOM)]))
        shapes.append(Text(x(value), HEIGHT - BOTTOM + 16, text, MIDDLE, "muted", 11))
    shapes.append(Text(WIDTH - RIGHT, HEIGHT - 8, label, END, "muted", 11))
    return shapes


def _mark(point: dict[str, Any], x: float, y: float) -> Mark:
    shapes: list[Shape] = []
    if point["uniform"]:
        corners = [(x - DIAMOND, y), (x, y - DIAMOND), (x + DIAMOND, y), (x, y + DIAMOND)]
        shapes.append(Polygon(corners, "other", "paper"))
    else:
        shapes.append(Circle(x, y, 3.5, "ours", "paper"))
    return Mark(point_label(point), shapes)


def _chosen(point: dict[str, Any], x: float, y: float, name: Text) -> Mark:
    return Mark(f"chosen: {point_label(point)}", [Circle(x, y, CHOSEN, "", "ink", 2), name])


def _own_name(text: str, x: float, y: float, others: Sequence[tuple[float, float]]) -> Text:
    """The name of the plan, on that side of its mark where it covers the fewest others."""

    def covered(name: Text) -> int:
        begin, end = _extent(name)
        outside = begin < LEFT or end > WIDTH
        return 100 * outside + sum(begin - 6 < a < end + 6 and name.y - 16 < b < name.y + 8 for a, b in others)

    places = [(x + way * 13, y + down, END if way < 0 else START) for down in (18, -12) for way in (-1, 1)]
    names = [Text(a, b, text, anchor, "ink", 11, bold=True, halo=True) for a, b, anchor in places]
    return min(names, key=covered)


def _extent(name: Text) -> tuple[float, float]:
    """From where to where the name of the plan goes."""
    width = OWN_LETTER * len(name.text)
    return (name.x - width, name.x) if name.anchor == END else (name.x, name.x + width)


def _names(uniform: Sequence[tuple[str, float, float]], plan: Text | None) -> list[Shape]:
    """Names beside diamonds, where there is room: within the drawing, not over another name nor that of the plan."""
    placed: list[tuple[float, float, float]] = [(*_extent(plan), plan.y)] if plan else []
    shapes: list[Shape] = []
    for name, x, y in uniform:
        width = 5.4 * len(name)
        left = x + 6 if x + 6 + width <= WIDTH else x - 6 - width
        if any(abs(y - 4 - v) < 10 and left < right and begin < left + width for begin, right, v in placed):
            continue
        placed.append((left, left + width, y - 4))
        shapes.append(Text(left, y - 4, name, fill="other", size=9.5, halo=True))
    return shapes


def _own(own: dict[str, Any], x: float, y: float, name: Text) -> Mark:
    corners = [(x, y - 7), (x + 7, y + 5), (x - 7, y + 5)]
    label = (
        f"this plan: {own['file_bytes']:,} bytes, {written(own['latency'], 'ms')}, "
        f"predicted loss {written(own['loss'], 'number')}"
    )
    return Mark(label, [Polygon(corners, "ink", "paper"), name])
