"""What the policy was at each stage of its life, where it was trained."""

from __future__ import annotations

from bitplan.report.drawing import Drawing
from bitplan.report.html import Figures, element, table
from bitplan.report.sections.section import Section, section


def stages(figures: Figures, drawings: dict[str, Drawing]) -> Section | None:
    """Planned, recovered, fine-tuned, replanned, as far as they are known."""
    found = figures.facts["stages"]
    if not found:
        return None
    labelled = any(stage["accuracy"] is not None for stage in found)
    heads = ["stage", "bytes", "ms", "loss", "agreement", *(["accuracy"] if labelled else [])]
    rows: list[list[str | None]] = [
        [
            stage["title"],
            figures(f"stages.{number}.file_bytes", "count"),
            figures(f"stages.{number}.latency_ms", "number"),
            figures(f"stages.{number}.loss", "number"),
            figures(f"stages.{number}.agreement", "percent"),
            *([figures(f"stages.{number}.accuracy", "percent")] if labelled else []),
        ]
        for number, stage in enumerate(found)
    ]
    return section(
        "stages",
        "Stages",
        element("p", "What the plan became in training; all but the first row were measured on the test images."),
        table("From the plan to the network that is kept", heads, rows),
    )
