"""The loss on held-back calibration images behind rounding and each step of recovery."""

from __future__ import annotations

from typing import Any

from bitplan.report.drawing import END, Drawing, Line, Mark, Rect, Shape, Text
from bitplan.report.text import significant

WIDTH, LEFT, ROW, TOP, BAR, VALUE = 760, 150, 28, 30, 440, 665


def recovery_chart(facts: dict[str, Any]) -> Drawing | None:
    """None where no step is known. Steps that were left out are drawn as outlines."""
    steps = facts["recovery"]
    if not steps:
        return None
    largest = max(max(step["held_back_loss"] for step in steps), 1e-12)
    bottom = TOP + ROW * len(steps)
    items: list[Shape | Mark] = [
        Text(0, 14, "step", fill="muted", size=11),
        Text(LEFT, 14, "loss on held-back calibration images", fill="muted", size=11),
        Line([(LEFT, TOP - 6), (LEFT, bottom)]),
    ]
    for number, step in enumerate(steps):
        y, loss, kept = TOP + number * ROW, step["held_back_loss"], step["kept"]
        length = BAR * loss / largest
        bar = Rect(
            LEFT, y + 4, length, ROW - 12, "ours" if kept else "", "" if kept else "muted", 0.55 if kept else 1, 2
        )
        shapes: list[Shape] = [Text(0, y + 16, step["step"]), bar, Text(VALUE, y + 16, significant(loss), END)]
        if not kept:
            shapes.append(Text(VALUE + 12, y + 16, "left out", fill="muted"))
        items.append(Mark(f"{step['step']}: {significant(loss)}{'' if kept else ', left out'}", shapes))
    described = f"Loss on held-back calibration images after {len(steps)} steps."
    return Drawing("recovery", "What recovery won back", described, WIDTH, bottom + 4, items)
