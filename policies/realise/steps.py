"""The steps of recovery by name, as functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bitplan.policies.realise.correct import correct
from bitplan.policies.realise.reconstruct import reconstruct
from bitplan.policies.realise.subject import Recovery
from bitplan.recovery_names import CORRECT, RECONSTRUCT, STEPS

LAYER_STEPS: Mapping[str, Recovery] = {CORRECT: correct, RECONSTRUCT: reconstruct}
"""Those that act on one layer at a time; each begins with the layer as the one before left it."""


def layer_steps(steps: Sequence[str]) -> tuple[str, ...]:
    """Those of `steps` that act on one layer at a time, in their order."""
    return tuple(step for step in STEPS if step in steps and step in LAYER_STEPS)
