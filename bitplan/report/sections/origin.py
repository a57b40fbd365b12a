"""Where everything comes from, and what could not be shown."""

from __future__ import annotations

import re

from bitplan.report.drawing import Drawing
from bitplan.report.html import Figures, Html, element, joined, pairs_list
from bitplan.report.sections.section import Section, section


def provenance(figures: Figures, drawings: dict[str, Drawing]) -> Section:
    """Hashes, versions, machine and settings."""
    found = figures.facts["provenance"]
    machine, artifact, network = found["machine"], found["artifact"], found["network"]
    rows: list[tuple[str, str | None]] = [
        ("folder", element("code", figures.facts["folder"])),
        ("artifact", artifact and joined(element("code", artifact["file"]), ", ", figures("provenance.artifact.bytes", "count"), " bytes")),
        ("artifact SHA-256", artifact and _hash(artifact["sha256"])),
        ("policy", _hash(found["decision"])),
        *((f"{name} SHA-256" if len(value) == 64 else name, _hash(value)) for name, value in found["hashes"].items()),
        ("network", network and joined(
            figures("provenance.network.layers", "count"), " layers, ",
            figures("provenance.network.weights", "count"), " weights",
        )),
        ("losses by", found["estimator"]),
        ("machine", machine and machine["cpu"]),
        ("kernels", machine and f"{machine['isa']}, version {machine['kernel_version']}"),
        ("processors", machine and figures("provenance.machine.cores", "count")),
        ("profiled", found["profiled"] or None),
        ("versions", machine and f"bitplan {machine['bitplan']}, Python {machine['python']}"),
        ("settings", ", ".join(f"{key} {value}" for key, value in found["settings"].items() if not isinstance(value, dict | list) and value is not None)),
    ]  # fmt: skip
    return section("provenance", "Provenance", pairs_list(rows))


def missing(figures: Figures, drawings: dict[str, Drawing]) -> Section | None:
    """What was left out, with the reason."""
    found = figures.facts["missing"]
    if not found:
        return None
    rows: list[tuple[str, str | None]] = [(row["what"], _with_code(row["why"])) for row in found]
    return section(
        "missing", "Left out", element("p", "This report shows less than it could, because:"), pairs_list(rows)
    )


def _hash(text: str) -> Html:
    return element("span", text, class_="hash")


def _with_code(text: str) -> Html:
    """The text with what stands between back quotes as code."""
    parts = re.split("`([^`]*)`", text)
    return joined(*(element("code", part) if number % 2 else part for number, part in enumerate(parts)))
