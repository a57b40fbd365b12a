"""The score that the program minimises, as one matrix over all choices of a loss profile.

    score(policy) = sum_i Q[i, i] + sum_(i < j) 2 Q[i, j]   over the choices i, j that the policy consists of

Choices of one layer never meet in a policy, so their entries are free; they are 0 unless a method needs them otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from bitplan.profiles.loss import LossProfile
from bitplan.variant import Variant

Matrix = NDArray[np.float64]


def quadratic(profile: LossProfile) -> Matrix:
    """Q [choices, choices], symmetric, in the order of `profile.choices`. A negative single loss is noise of the
    calibration images, not something to be bought, and counts as 0. Measured pairs that are not positive semidefinite
    are replaced by the nearest matrix that is (CLADO, section 3): else a solver would buy a loss below zero."""
    single = np.array([max(profile.loss(*choice), 0.0) for choice in profile.choices])
    if profile.pairs is None:
        return np.diag(single)
    q = np.array(profile.pairs, np.float64) / 2
    np.fill_diagonal(q, single)
    return q if profile.semidefinite else positive_part(q)


def positive_part(matrix: Matrix) -> Matrix:
    """The positive semidefinite matrix nearest to a symmetric one (Frobenius)."""
    values, vectors = np.linalg.eigh(matrix)
    return np.asarray((vectors * np.maximum(values, 0.0)) @ vectors.T)


def score(profile: LossProfile, matrix: Matrix, variants: Mapping[str, Variant]) -> float:
    """The score of a policy. Raises UsageError for a choice that the profile does not have."""
    return float(matrix[np.ix_(*[[profile.number(*choice) for choice in variants.items()]] * 2)].sum())


def predicted_loss(profile: LossProfile, matrix: Matrix, variants: Mapping[str, Variant]) -> float:
    """The score of a policy as the loss that it stands for; never negative."""
    return profile.link.loss(score(profile, matrix, variants))


__all__ = ["Matrix", "positive_part", "predicted_loss", "quadratic", "score"]
