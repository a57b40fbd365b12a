"""How the steps that recover accuracy are named, without what they need."""

from __future__ import annotations

from collections.abc import Iterable

from bitplan.errors import UsageError
from bitplan.suggest import suggestion

CORRECT, RECONSTRUCT, TUNE = "correct", "reconstruct", "tune"
STEPS = (CORRECT, RECONSTRUCT, TUNE)
"""In the order in which they are carried out."""

PRESETS = {"none": (), "fast": (CORRECT,), "balanced": (CORRECT, RECONSTRUCT), "strong": STEPS}


def steps_named(names: Iterable[str], field: str = "recovery") -> tuple[str, ...]:
    """The steps that names of steps and presets stand for, in their order. Raises UsageError for an unknown name."""
    wanted: set[str] = set()
    for name in names:
        if name not in STEPS and name not in PRESETS:
            known = [*STEPS, *PRESETS]
            raise UsageError(f"{field} {name!r} is no step; {suggestion(name, known, 'steps and presets')}")
        wanted.update(PRESETS.get(name, (name,)))
    return tuple(step for step in STEPS if step in wanted)
