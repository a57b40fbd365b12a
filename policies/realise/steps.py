"""The steps of recovery that act on one layer at a time, as functions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from bitplan.policies.realise.correct import correct
from bitplan.policies.realise.reconstruct import reconstruct
from bitplan.policies.realise.subject import Recovery
from bitplan.recovery_names import CORRECT, RECONSTRUCT

BY_NAME: Mapping[str, Recovery] = {CORRECT: correct, RECONSTRUCT: reconstruct}
"""Each begins with the layer as the one before left it."""


def recoveries(steps: Iterable[str]) -> list[Recovery]:
    """The functions of these steps (recovery_names.LAYER_STEPS)."""
    return [BY_NAME[step] for step in steps]
