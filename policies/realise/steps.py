"""The steps of recovery that act on one layer at a time, as functions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial

from bitplan.policies.realise.correct import correct
from bitplan.policies.realise.reconstruct import reconstruct
from bitplan.policies.realise.subject import Recovery
from bitplan.recovery_names import CORRECT, RECONSTRUCT

BY_NAME: Mapping[str, Recovery] = {CORRECT: correct, RECONSTRUCT: reconstruct}
"""Each begins with the layer as the one before left it."""


OWN_WEIGHTS: Recovery = partial(reconstruct, follow=0.0)
"""Reconstruction that makes up for a layer's own rounding, not for the errors of the layers before it."""


def recoveries(steps: Iterable[str], *, own_weights: bool = False) -> list[Recovery]:
    """The functions of these steps (recovery_names.LAYER_STEPS); with `own_weights`, OWN_WEIGHTS in the place of
    reconstruction."""
    by_name = {**BY_NAME, RECONSTRUCT: OWN_WEIGHTS} if own_weights else BY_NAME
    return [by_name[step] for step in steps]
