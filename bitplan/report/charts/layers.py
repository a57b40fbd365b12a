"""Every layer's bits, bytes, milliseconds and share of the loss, as bars."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bitplan.report.drawing import END, Drawing, Line, Mark, Polygon, Rect, Shape, Text
from bitplan.report.text import STYLES, significant, written

WIDTH, ROW, TOP = 760, 20, 34
NAME, ENCODING, FIRST, COLUMN, BAR = 0, 150, 262, 126, 58
NAME_LETTERS = 21

COLUMNS: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("bits_per_weight", "bits per weight", STYLES["bits"]),
    ("bytes", "bytes", STYLES["count"]),
    ("predicted_ms", "milliseconds", significant),
    ("loss_share", "share of loss", STYLES["share"]),
)


def layers_chart(facts: dict[str, Any]) -> Drawing:
    """One row per layer; columns that nothing is known of are left empty."""
    layers = facts["layers"]
    timed = any(layer["measured_ms"] is not None for layer in layers)
    items: list[Shape | Mark] = [Text(NAME, 14, "layer", fill="muted"), Text(ENCODING, 14, "encoding", fill="muted")]
    largest: dict[str, float] = {}
    for number, (key, title, _) in enumerate(COLUMNS):
        values = [layer[key] for layer in layers if layer[key] is not None]
        if key == "predicted_ms":
            values += [layer["measured_ms"] for layer in layers if layer["measured_ms"] is not None]
        largest[key] = max([*values, 1e-12])
        x = FIRST + number * COLUMN
        items.append(Text(x, 14, title, fill="muted"))
        items.append(Line([(x, TOP - 8), (x, TOP + ROW * len(layers))]))
    for row, layer in enumerate(layers):
        items.append(Mark(layer_label(layer), _row(layer, TOP + row * ROW, largest)))
    height = TOP + ROW * len(layers) + (26 if timed else 6)
    if timed:
        items += [_diamond(FIRST + 2 * COLUMN + 5, height - 10), Text(FIRST + 2 * COLUMN + 14, height - 6, "measured", fill="muted", size=11)]  # fmt: skip
    described = (
        f"{len(layers)} layers with bits per weight, bytes, predicted milliseconds and share of the predicted loss."
    )
    return Drawing("layers", "What each layer became, and what it costs", described, WIDTH, height, items)


def layer_label(layer: dict[str, Any]) -> str:
    """A layer in words."""
    parts = [
        f"{layer['name']}: {layer['encoding']}",
        f"{written(layer['bits_per_weight'], 'bits')} bits per weight",
        f"{layer['bytes']:,} bytes",
        f"predicted {written(layer['predicted_ms'], 'ms')}",
    ]
    if layer["measured_ms"] is not None:
        parts.append(f"measured {written(layer['measured_ms'], 'ms')}")
    if layer["loss_share"] is not None:
        parts.append(f"{written(layer['loss_share'], 'share')} of the loss")
    return ", ".join(parts)


def shortened(name: str, letters: int = NAME_LETTERS) -> str:
    """The name, its beginning left out where it is long: ends of layers' names tell them apart."""
    return name if len(name) <= letters else "…" + name[1 - letters :].lstrip("._/")


def _row(layer: dict[str, Any], y: float, largest: dict[str, float]) -> list[Shape]:
    base = y + 14
    shapes: list[Shape] = [
        Text(NAME, base, shortened(layer["name"])),
        Text(ENCODING, base, shortened(layer["encoding"], 18), fill="ours", bold=True),
    ]
    for number, (key, _, write) in enumerate(COLUMNS):
        value, x = layer[key], FIRST + number * COLUMN
        if value is None:
            continue
        length = BAR * max(value, 0.0) / largest[key]
        shapes.append(Rect(x, y + 4, max(length, 1.0), ROW - 8, "ours", opacity=0.55, radius=1.5))
        shapes.append(Text(x + COLUMN - 10, base, write(value), END, "muted", 11))
        if key == "predicted_ms" and layer["measured_ms"] is not None:
            shapes.append(_diamond(x + BAR * layer["measured_ms"] / largest[key], y + ROW / 2))
    return shapes


def _diamond(x: float, y: float, size: float = 4.5) -> Polygon:
    return Polygon([(x - size, y), (x, y - size), (x + size, y), (x, y + size)], "other", "paper")
