"""The steps of recovery that act on one layer at a time, as functions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial

from bitplan.policies.realise.correct import correct
from bitplan.policies.realise.reconstruct import reconstruct
from bitplan.policies.realise.subject import Recovery
from bitplan.recovery_names import CORRECT, RECONSTRUCT

OWN_WEIGHTS = f"{RECONSTRUCT} to own weights"
"""Reconstruction that makes up for a layer's own rounding, not for the errors of the layers before it. It is tried where
reconstruction is left out, which may have followed these too far."""

BY_NAME: Mapping[str, Recovery] = {
    CORRECT: correct,
    RECONSTRUCT: reconstruct,
    OWN_WEIGHTS: partial(reconstruct, follow=0.0),
}
"""Each begins with the layer as the one before left it."""


def recoveries(steps: Iterable[str]) -> list[Recovery]:
    """The functions of these steps (recovery_names.LAYER_STEPS, or OWN_WEIGHTS)."""
    return [BY_NAME[step] for step in steps]
