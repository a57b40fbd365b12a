"""What was predicted, set against what was measured."""

from __future__ import annotations

from bitplan.report.drawing import Drawing
from bitplan.report.html import Figures, element, table
from bitplan.report.sections.section import Section, plot, section
from bitplan.report.text import BY_UNIT


def measured(figures: Figures, drawings: dict[str, Drawing]) -> Section | None:
    """None where nothing was measured."""
    facts = figures.facts
    if not facts["networks"]:
        return None
    rows: list[list[str | None]] = []
    for number, row in enumerate(facts["quantities"]):
        style, path = BY_UNIT.get(row["unit"], "number"), f"quantities.{number}"
        style = "count" if style == "size" else style
        name = f"{row['name']}, bytes" if row["unit"] == "B" else row["name"]
        rows.append(
            [
                name,
                figures(f"{path}.predicted", style),
                figures(f"{path}.measured", style),
                figures(f"{path}.error", "change"),
            ]
        )
    worth = "accuracy" if any(row["accuracy"] is not None for row in facts["networks"]) else "agreement"
    networks: list[list[str | None]] = [
        [
            row["name"],
            figures(f"networks.{number}.file_bytes", "count"),
            figures(f"networks.{number}.predicted_latency_ms", "number"),
            figures(f"networks.{number}.measured_latency_ms", "number"),
            figures(f"networks.{number}.{worth}", "percent"),
            figures(f"networks.{number}.loss", "number"),
        ]
        for number, row in enumerate(facts["networks"])
    ]
    heads = ["network", "bytes", "predicted ms", "measured ms", worth, "loss"]
    layers = drawings.get("layer-latency")
    return section(
        "measured",
        "Predicted and measured",
        table("The plan", ["", "predicted", "measured", "error"], rows),
        plot(drawings.get("latency")),
        table("All networks that were carried out, as measured on the test images", heads, networks),
        element("h3", "Layers") if layers else None,
        plot(layers, wide=False, small=True),
    )
