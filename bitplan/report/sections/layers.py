"""What each layer became."""

from __future__ import annotations

from bitplan.report.drawing import Drawing
from bitplan.report.html import Figures, Html, element, joined, table
from bitplan.report.sections.section import Section, note, plot, section


def layers(figures: Figures, drawings: dict[str, Drawing]) -> Section:
    """Chart and table, with the sums."""
    facts = figures.facts
    timed = any(layer["measured_ms"] is not None for layer in facts["layers"])
    heads = ["layer", "operation", "encoding", "kernel", "bits", "bytes", "predicted ms"]
    heads += ["measured ms"] if timed else []
    heads += ["share of loss"]
    rows: list[list[str | None]] = [
        _row(figures, f"layers.{number}", layer, timed) for number, layer in enumerate(facts["layers"])
    ]
    rows.append(_sums(figures, timed))
    estimated = [layer["name"] for layer in facts["layers"] if layer["estimated"]]
    return section(
        "layers",
        "Layers",
        element("p", "Bits per weight count scales, biases and padding, as they stand in the file."),
        plot(drawings.get("layers"), hint="Point at a mark of any plot, or use the arrow keys."),
        table("Each layer's encoding and cost", heads, rows, texts=4),
        note(
            "Other parts of the file (header and graph) take ",
            figures("totals.rest_bytes", "count"),
            " bytes; operations without weights are predicted to take ",
            figures("totals.rest_predicted_ms", "ms"),
            ".",
        ),
        note(
            "Measured layers come from one process that runs the network step by step, which then takes ",
            figures("totals.timed_ms", "ms"),
            " as a whole.",
        )
        if timed
        else None,
        note(f"Marked with ~: estimated, not timed, on the planned machine ({len(estimated)} layers).")
        if estimated
        else None,
    )


def _row(figures: Figures, path: str, layer: dict[str, object], timed: bool) -> list[str | None]:
    predicted: Html = figures(f"{path}.predicted_ms", "number")
    return [
        str(layer["name"]),
        str(layer["operation"] or "–"),
        element("strong", str(layer["encoding"])),
        str(layer["kernel"]),
        figures(f"{path}.bits_per_weight", "bits"),
        figures(f"{path}.bytes", "count"),
        joined("~", predicted) if layer["estimated"] else predicted,
        *([figures(f"{path}.measured_ms", "number")] if timed else []),
        figures(f"{path}.loss_share", "share"),
    ]


def _sums(figures: Figures, timed: bool) -> list[str | None]:
    return [
        "all layers",
        "",
        "",
        "",
        figures("totals.bits_per_weight", "bits"),
        figures("totals.bytes", "count"),
        figures("totals.predicted_ms", "number"),
        *([figures("totals.measured_ms", "number")] if timed else []),
        None,
    ]
