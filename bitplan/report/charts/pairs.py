"""What each pair of layers costs beyond both alone, as a triangle of cells."""

from __future__ import annotations

from math import sqrt
from typing import Any

from bitplan.report.charts.layers import shortened
from bitplan.report.drawing import END, MIDDLE, Drawing, Line, Mark, Rect, Shape, Text
from bitplan.report.text import significant

LEFT, TOP, ROOM = 176, 26, 572
LARGEST_CELL, NAMED_CELL, SIGNED_CELL = 30.0, 9.0, 9.0
"""Pixels; in cells smaller than the last two there is no room for names and for a dash."""
FAINT = 0.04
"""Below this share of the strongest colour a cell gets no sign."""


def pairs_chart(facts: dict[str, Any]) -> Drawing | None:
    """None where pairs were not measured."""
    pairs = facts["pairs"]
    if pairs is None or len(pairs["layers"]) < 2:
        return None
    names, values, largest = pairs["layers"], pairs["values"], pairs["largest"] or 1.0
    cell = min(LARGEST_CELL, ROOM / len(names))
    items: list[Shape | Mark] = []
    every = max(1, round(14 / cell))
    for number, name in enumerate(names):
        middle = number * cell + cell / 2
        if cell >= NAMED_CELL:
            items.append(Text(LEFT - 26, TOP + middle + 4, shortened(name, 22), END, size=min(12.0, cell + 1)))
        if number % every == 0:
            items.append(Text(LEFT - 4, TOP + middle + 4, str(number + 1), END, "muted", 10))
            if number < len(names) - 1:
                items.append(Text(LEFT + middle, TOP - 8 + number * cell, str(number + 1), MIDDLE, "muted", 10))
    for row, name in enumerate(names):
        for column in range(row):
            value = values[row][column]
            label = f"{name} with {names[column]}: {significant(value)}"
            items.append(Mark(label, _cell(LEFT + column * cell, TOP + row * cell, cell, value / largest)))
    width = LEFT + max(cell * len(names), 320) + 12
    items += _legend(width - 270, 16, largest, pairs["unit"])
    described = (
        f"Lower triangle of {len(names)} layers: what two layers in their chosen encodings cost together beyond both alone; "
        f"a dash in a cell means that it is less. The strongest is {significant(largest)}."
    )
    height = TOP + cell * len(names) + 8
    return Drawing("pairs", "What pairs of layers cost together", described, width, max(height, 90), items)


def _cell(x: float, y: float, size: float, share: float) -> list[Shape]:
    side = size - 1.0 if size >= 6 else size
    strength = sqrt(abs(share))  # small values stay visible
    ground = Rect(x, y, side, side, "panel")
    if share >= 0:
        return [ground, Rect(x, y, side, side, "other", opacity=strength)]
    if size < SIGNED_CELL:  # no room for a dash in it: it is one itself
        return [ground, Rect(x, y + 0.3 * side, side, 0.4 * side, "ours", opacity=strength)]
    shapes: list[Shape] = [ground, Rect(x, y, side, side, "ours", opacity=strength)]
    if abs(share) > FAINT:
        shapes.append(Line([(x + size * 0.3, y + side / 2), (x + size * 0.65, y + side / 2)], "paper", 2))
    return shapes


def _legend(x: float, y: float, largest: float, unit: str) -> list[Shape]:
    shapes: list[Shape] = [Text(x, y, unit, fill="muted", size=11)]
    for number, share in enumerate((-1.0, -0.25, 0.0, 0.25, 1.0)):
        left = x + 56 * number
        shapes += _cell(left, y + 8, 16, share)
        shapes.append(Text(left, y + 38, significant(share * largest, 2), fill="muted", size=10))
    return shapes
