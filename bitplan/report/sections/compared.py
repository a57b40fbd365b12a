"""This result beside another one."""

from __future__ import annotations

from bitplan.report.drawing import Drawing
from bitplan.report.html import Figures, element, table
from bitplan.report.sections.section import Section, note, plot, section
from bitplan.report.text import BY_UNIT


def compared(figures: Figures, drawings: dict[str, Drawing]) -> Section | None:
    """Figures side by side, and the layers."""
    found = figures.facts["compare"]
    if found is None:
        return None
    rows: list[list[str | None]] = []
    for number, row in enumerate(found["quantities"]):
        style, path = BY_UNIT.get(row["unit"], "number"), f"compare.quantities.{number}"
        rows.append(
            [
                f"{row['basis']} {row['name']}",
                figures(f"{path}.ours", style),
                figures(f"{path}.theirs", style),
                figures(f"{path}.change", "change"),
            ]
        )
    return section(
        "compare",
        "Comparison",
        element(
            "p", f"{found['changed']} of {len(found['layers'])} layers have another encoding than in {found['theirs']}."
        ),
        None if found["same_network"] else note("These are results of different networks."),
        table("Both results", ["", found["ours"], found["theirs"], "change"], rows),
        plot(drawings.get("compared-layers")),
    )
