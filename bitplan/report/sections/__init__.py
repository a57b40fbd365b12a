"""The sections of the page in their order; each is left out where the facts hold nothing for it."""

from __future__ import annotations

from collections.abc import Callable

from bitplan.report.drawing import Drawing
from bitplan.report.html import Figures
from bitplan.report.sections.compared import compared
from bitplan.report.sections.layers import layers
from bitplan.report.sections.measured import measured
from bitplan.report.sections.origin import missing, provenance
from bitplan.report.sections.section import Section
from bitplan.report.sections.solved import frontier, pairs, recovery, solver
from bitplan.report.sections.stages import stages
from bitplan.report.sections.targets import targets

SECTIONS: tuple[Callable[[Figures, dict[str, Drawing]], Section | None], ...] = (
    targets,
    compared,
    layers,
    frontier,
    pairs,
    measured,
    recovery,
    stages,
    solver,
    provenance,
    missing,
)

__all__ = ["SECTIONS", "Section"]
