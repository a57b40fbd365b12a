"""Bytes of every layer in two results."""

from __future__ import annotations

from typing import Any

from bitplan.report.charts.layers import shortened
from bitplan.report.drawing import END, Drawing, Line, Mark, Rect, Shape, Text

WIDTH, LEFT, BAR, VALUE, ROW, TOP, THICK = 760, 160, 300, 540, 26, 34, 8


def compared_chart(facts: dict[str, Any]) -> Drawing | None:
    """Two bars per layer, ours above; None without a comparison."""
    compare = facts["compare"]
    if compare is None:
        return None
    rows = compare["layers"]
    largest = max(max(row["bytes_ours"] or 0, row["bytes_theirs"] or 0, 1) for row in rows)
    bottom = TOP + ROW * len(rows)
    items: list[Shape | Mark] = [
        Text(0, 14, "layer", fill="muted", size=11),
        Rect(LEFT, 6, 14, THICK, "ours", opacity=0.7),
        Text(LEFT + 20, 14, f"above: {shortened(compare['ours'])}", fill="muted", size=11),
        Rect(LEFT + 190, 6, 14, THICK, "", "other"),
        Text(LEFT + 210, 14, f"below: {shortened(compare['theirs'])}", fill="muted", size=11),
        Text(VALUE + 20, 14, "encoding, above / below", fill="muted", size=11),
        Line([(LEFT, TOP - 6), (LEFT, bottom)]),
    ]
    for number, row in enumerate(rows):
        items.append(Mark(_label(row, compare), _row(row, TOP + number * ROW, largest)))
    described = f"Bytes of {len(rows)} layers in {compare['ours']} and {compare['theirs']}; {compare['changed']} have another encoding."
    return Drawing("compared-layers", "Layers of both results", described, WIDTH, bottom + 6, items)


def _label(row: dict[str, Any], compare: dict[str, Any]) -> str:
    sides = [
        f"{compare[whose]} {row[f'encoding_{whose}'] or 'has no such layer'}, {row[f'bytes_{whose}'] or 0:,} bytes"
        for whose in ("ours", "theirs")
    ]
    return f"{row['name']}: {'; '.join(sides)}"


def _row(row: dict[str, Any], y: float, largest: float) -> list[Shape]:
    ours, theirs = row["bytes_ours"] or 0, row["bytes_theirs"] or 0
    changed = row["encoding_ours"] != row["encoding_theirs"]
    encodings = f"{row['encoding_ours'] or 'none'} / {row['encoding_theirs'] or 'none'}"
    return [
        Text(0, y + 14, shortened(row["name"])),
        Rect(LEFT, y + 2, max(BAR * ours / largest, 1), THICK, "ours", opacity=0.7),
        Rect(LEFT, y + 3 + THICK, max(BAR * theirs / largest, 1), THICK - 1, "", "other"),
        Text(VALUE, y + 14, f"{ours - theirs:+,}" if ours != theirs else "same", END, "ink" if changed else "muted", 11),
        Text(VALUE + 20, y + 14, encodings if changed else row["encoding_ours"], fill="ink" if changed else "muted", size=11),
    ]  # fmt: skip
