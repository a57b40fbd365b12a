"""Weights rounded so that the layer's outputs come back, on what it reads behind the layers realised before it.

With x what the layer reads there and y what it makes in full precision (before residual and activation), levels and
scales of each output channel minimise the variance of w x - y; its mean is the bias's. It begins with the least-squares
weights, which make up for errors of earlier layers too (GPTAQ, arXiv 2504.02692, does this column by column); then come
error feedback (`rounding.error_feedback`) from a few scales, and, from the best, coordinate descent on levels and scales. At the
end the channels' means and scales are corrected (correct.py).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bitplan.encodings import EncodedLayer, encoding_of
from bitplan.encodings.coded import Coded
from bitplan.encodings.grid import Grid
from bitplan.encodings.levels import LevelEncoding
from bitplan.encodings.pruned import Pruned, PrunedFloat
from bitplan.encodings.xor import Xor
from bitplan.policies.realise.correct import correct
from bitplan.policies.realise.kept import exchanged
from bitplan.policies.realise.moments import Doubles, InputMoments
from bitplan.policies.realise.pruning import pruned
from bitplan.policies.realise.rated import rated
from bitplan.policies.realise.rounding import Problem, descend, error_feedback
from bitplan.policies.realise.subject import Subject
from bitplan.variant import FLOAT32

NO_GRID = Grid.of(0, 1, 0)
"""Of layers whose levels are not chosen from a grid."""

STARTS = (0.8, 0.9, 1.0, 1.12)
"""Factors on the encoding's own scales that error feedback begins with."""

FINE = 16
"""Levels from which on one start is enough: the encoding's own scale is the best there."""

SWEEPS = 12
"""Of coordinate descent at most; it usually ends earlier."""

EXCHANGES = 3
"""How often an APB layer may choose its kept weights anew."""

DAMPING = 0.01
"""Share of the covariance's diagonal at least that stands for the images that were not seen."""

CONSTANT = 1e-4
"""A column whose variance is below this share of the mean one counts as constant: it may be rounding errors."""

LARGEST = 2 << 30
"""Bytes that the matrices of one layer may take; wider layers are only corrected."""
MATRICES = 8
"""Arrays as large as the covariance that are held at once."""

FOLLOW = 0.75
"""How far the target goes, as a rule, from the full-precision weights to the least-squares ones (decision 0012)."""


def reconstruct(subject: Subject, layer: EncodedLayer, follow: float = FOLLOW) -> EncodedLayer:
    """The layer with levels, scales and bias of small output error on the calibration images. Its size and the number of
    kept weights stay the same; a float32 layer comes back itself, and one too wide for LARGEST is corrected alone.
    `follow`: how far the target goes from the full-precision weights (0) to the least-squares ones (1)."""
    if layer.variant == FLOAT32:
        return layer
    if 8 * MATRICES * layer.shape.groups * layer.shape.reduction**2 > LARGEST:
        return correct(subject, layer)
    return correct(subject, rounded(subject.once(InputMoments.of), layer, subject.weight, follow))


def rounded(
    moments: InputMoments, layer: EncodedLayer, weight: NDArray[np.float32], follow: float = FOLLOW
) -> EncodedLayer:
    """The layer with new levels and scales from its full-precision `weight` [out, in / groups, height, width]. No row's
    error variance (`InputMoments.error`) is above that of the layer as it came; where rows share something (the weights
    that are kept, the bytes of coded levels), not their sum."""
    encoding = encoding_of(layer.variant)
    target, curvature = aim(moments, weight, follow)
    if isinstance(encoding, Pruned | PrunedFloat):
        return unless_worse(moments, layer, pruned(Problem(target, curvature, NO_GRID), layer))
    assert isinstance(encoding, LevelEncoding)
    size = layer.levels.shape
    fresh = encoding.quantise(target.reshape(size).astype(np.float32), layer.bias, layer.variant, layer.shape.groups)
    problem = Problem(target, curvature, encoding.grid(fresh).to(len(fresh.scale), target.shape[2]))
    if isinstance(encoding, Coded | Xor):
        return coded_together(moments, problem, layer, fresh)
    found = searched(problem, Candidate.of(fresh, target.shape))
    if len(fresh.kept_positions):
        fresh, found = best_kept(encoding, problem, fresh, found)
    new = replace(fresh, levels=found.levels.reshape(size).astype(np.int8)).rescaled(found.scale.reshape(-1))
    before, after = (moments.error(Candidate.of(x, target.shape).rows) for x in (layer, new))
    if len(fresh.kept_positions):
        return new if after.sum() <= before.sum() else layer
    better = (after <= before).reshape(-1)
    levels = np.where(better.reshape(-1, 1, 1, 1), new.levels, layer.levels)
    return replace(new, levels=levels).rescaled(np.where(better, new.scale, layer.scale))


def coded_together(moments: InputMoments, problem: Problem, layer: EncodedLayer, fresh: EncodedLayer) -> EncodedLayer:
    """As `rounded`, of an encoding in which one level cannot change alone; the rows' sum of errors does not rise. What
    xor's search finds nearest to the target is taken as it is, with new scales."""
    encoding = encoding_of(layer.variant)
    if isinstance(encoding, Coded):
        new = rated(encoding, problem, fresh)
    else:
        start = Candidate.of(fresh, problem.target.shape)
        new = fresh.rescaled(problem.fitted_scale(start.levels, start.scale).reshape(-1))
    return unless_worse(moments, layer, new)


def unless_worse(moments: InputMoments, layer: EncodedLayer, new: EncodedLayer) -> EncodedLayer:
    """The new layer, unless the rows' sum of errors is larger."""
    before, after = (
        moments.error(x.weight.reshape(moments.cross.shape).astype(np.float64)).sum() for x in (layer, new)
    )
    return new if after <= before else layer


def aim(moments: InputMoments, weight: NDArray[np.float32], follow: float) -> tuple[Doubles, Doubles]:
    """The rows that levels are to come near to, and the curvature that says how much each error counts."""
    curvature = shrunk(moments)
    full = weight.reshape(moments.cross.shape).astype(np.float64)
    return full + follow * missing(moments, curvature, full), curvature


@dataclass(frozen=True)
class Candidate:
    """Levels [G, R, K] and scales [G, R]."""

    levels: Doubles
    scale: Doubles

    @classmethod
    def of(cls, layer: EncodedLayer, shape: tuple[int, ...]) -> Candidate:
        return cls(layer.levels.reshape(shape).astype(np.float64), layer.scale.reshape(shape[:2]).astype(np.float64))

    @property
    def rows(self) -> Doubles:
        """The weights."""
        return self.scale[..., None] * self.levels

    def or_better(self, other: Candidate, problem: Problem) -> Candidate:
        """The better of both, row by row."""
        better = problem.error(other.levels, other.scale) < problem.error(self.levels, self.scale)
        return Candidate(
            np.where(better[..., None], other.levels, self.levels), np.where(better, other.scale, self.scale)
        )


def searched(problem: Problem, start: Candidate) -> Candidate:
    """The best levels and scales of each row that error feedback and descent find from the scales of `start`."""
    grid = problem.grid
    coarse = int(((grid.highest - grid.lowest) // grid.step).min()) + 1 < FINE
    found = start
    for factor in STARTS if coarse else (1.0,):
        scale = factor * start.scale
        levels = error_feedback(problem, scale)
        found = found.or_better(Candidate(levels, problem.fitted_scale(levels, scale)), problem)
    return Candidate(*descend(problem, found.levels, found.scale, SWEEPS))


def best_kept(
    encoding: LevelEncoding, problem: Problem, layer: EncodedLayer, found: Candidate
) -> tuple[EncodedLayer, Candidate]:
    """An APB layer and its levels and scales after choosing the kept weights anew as long as that lowers the error."""
    error = problem.error(found.levels, found.scale).sum()
    for _ in range(EXCHANGES):
        other = exchanged(problem, layer, found.levels, found.scale)
        changed = replace(problem, grid=encoding.grid(other).to(len(other.scale), found.levels.shape[2]))
        start = Candidate.of(other, found.levels.shape)
        descended = Candidate(*descend(changed, start.levels, start.scale, SWEEPS))
        after = changed.error(descended.levels, descended.scale).sum()
        if after >= error:
            break
        layer, problem, found, error = other, changed, descended, after
    return layer, found


def shrunk(moments: InputMoments) -> Doubles:
    """The covariance, drawn towards its diagonal the more the fewer rows it comes from."""
    covariance = moments.covariance
    columns = np.arange(covariance.shape[1])
    diagonal = covariance[:, columns, columns]
    share = max(DAMPING, len(columns) / (len(columns) + moments.count))
    result = covariance * (1 - share)
    # A value that is constant on the images still has to be rounded to something, and nothing can be made up for by it.
    floor = CONSTANT * max(float(diagonal.mean()), 1e-30)
    constant = diagonal < floor
    result[constant[:, :, None] | constant[:, None, :]] = 0
    result[:, columns, columns] = np.maximum(diagonal, floor)
    return result


def missing(moments: InputMoments, curvature: Doubles, weight: Doubles) -> Doubles:
    """What the weights of least squared error have over those of full precision."""
    short = moments.cross - weight @ moments.covariance
    diagonal = np.einsum("gkk->gk", moments.covariance)
    short *= (diagonal >= CONSTANT * max(float(diagonal.mean()), 1e-30))[:, None, :]
    return np.asarray(np.linalg.solve(curvature, short.transpose(0, 2, 1)).transpose(0, 2, 1), np.float64)
