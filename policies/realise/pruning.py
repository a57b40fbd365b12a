"""Which weights of a pruned layer are kept, and how these make up for the others, by the error of the layer's outputs.

    magnitude        the largest of the target, each then set anew by descent with the mask fixed
    second_order     by w^2 / [H^-1]_qq, what a weight's absence costs once the others make up for it (Hassibi and Stork
                     1993; Optimal Brain Compression, arXiv 2208.11580), in one pass over the columns with the weights
                     behind updated as in SparseGPT (arXiv 2301.00774). There a quota of each block of columns is pruned;
                     here what costs less than a price, one for the layer, which is searched until the share is right
    reconstruction   the better of both, and from it descent on error + price x (weights that are not zero), in which
                     weights leave and enter the mask one by one; then the mask is fixed

Every rule ends with at most as many weights as the variant keeps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bitplan.encodings import EncodedLayer
from bitplan.encodings.channel_numbers import round_to_half
from bitplan.encodings.mask import largest
from bitplan.encodings.pruned import TOP, kept_weights
from bitplan.policies.realise.rounding import Doubles, Problem, descend, error_feedback, spreading
from bitplan.variant import F32

HEADROOM = 1.1
"""How far levels reach beyond the largest weight of a row: kept weights grow when they make up for others."""
PRICES = 6
"""Passes of error feedback at most in the search of a price."""
CLOSE = 0.02
"""A pass that keeps so nearly the right number ends the search."""
SWEEPS = 8
EXCHANGES = 3
"""How often the mask may be chosen anew."""

Mask = NDArray[np.bool_]
Found = tuple[Doubles, Doubles]
"""Levels [G, R, K] and scales [G, R]."""


@dataclass(eq=False)
class PrunedProblem(Problem):
    """Whole levels -127..127 (any numbers where `whole` is false). Those outside `mask` [G, R, K] are zero; without one,
    every level that is not zero costs `price` beside the error."""

    whole: bool
    price: float = 0.0
    mask: Mask | None = None

    def nearest(self, ratio: Doubles, column: int, worth: Doubles) -> Doubles:
        level = self.rounded(ratio)
        if self.mask is not None:
            return np.where(self.mask[:, :, column], level, 0.0)
        return np.where(worth * (ratio**2 - (ratio - level) ** 2) > self.price, level, 0.0)

    def rounded(self, ratio: Doubles) -> Doubles:
        return np.clip(np.rint(ratio), -TOP, TOP) if self.whole else ratio

    def first_scale(self) -> Doubles:
        """The scales [G, R] that every search begins with."""
        reach = np.abs(self.target).max(2)
        return np.where(reach > 0, HEADROOM * reach / TOP if self.whole else 1.0, 0.0)

    def benefit(self, levels: Doubles, scale: Doubles) -> Doubles:
        """What each weight's not being zero lowers the error by, [G, R, K], all others in place."""
        slope = (scale[..., None] * levels - self.target) @ self.curvature
        curve = np.maximum(np.einsum("gkk->gk", self.curvature), 1e-300)[:, None, :]
        step = np.where(scale > 0, scale, 1.0)[..., None]
        wanted = levels - slope / (curve * step)
        saved = curve * step**2 * (wanted**2 - (self.rounded(wanted) - wanted) ** 2)
        return np.where(scale[..., None] > 0, saved, 0.0)

    def within(self, mask: Mask, found: Found) -> Found:
        """Levels and scales after descent with the mask fixed."""
        return descend(replace(self, mask=mask), np.where(mask, found[0], 0.0), found[1], SWEEPS)

    def total(self, found: Found) -> float:
        return float(self.error(*found).sum())


def magnitude(problem: PrunedProblem, kept: int) -> Found:
    """The largest weights of the target."""
    scale = problem.first_scale()
    start = problem.rounded(problem.target / np.where(scale > 0, scale, 1.0)[..., None])
    return problem.within(largest(np.abs(problem.target), kept), (start, scale))


def second_order(problem: PrunedProblem, kept: int) -> Found:
    """By what a weight's absence costs behind the update of those that are left."""
    priced = at_share(problem, problem.first_scale(), kept)
    levels, scale = priced
    return problem.within(chosen(problem, priced, kept), (levels, problem.fitted_scale(levels, scale)))


def reconstruction(problem: PrunedProblem, kept: int) -> Found:
    """The better of both rules, with weights exchanged as long as that lowers the error."""
    found = min(magnitude(problem, kept), second_order(problem, kept), key=problem.total)
    least = problem.total(found)
    for _ in range(EXCHANGES):
        benefit = problem.benefit(*found)
        # The price at which as many weights are worth keeping, each looked at with all others in place.
        price = float(np.partition(benefit, benefit.size - kept, axis=None)[benefit.size - kept])
        free = descend(replace(problem, price=price), *found, SWEEPS)
        other = problem.within(chosen(problem, free, kept), free)
        error = problem.total(other)
        if error >= least:
            break
        found, least = other, error
    return found


RULES: Mapping[str, Callable[[PrunedProblem, int], Found]] = {
    "magnitude": magnitude,
    "second-order": second_order,
    "reconstruction": reconstruction,
}


def pruned(problem: Problem, like: EncodedLayer, rule: str = "reconstruction") -> EncodedLayer:
    """A layer of pruned or prunedfloat like the given one, with the mask and the weights that a rule finds."""
    whole = like.variant.activation != F32
    search = PrunedProblem(problem.target, problem.curvature, problem.grid, whole)
    levels, scale = RULES[rule](search, kept_weights(like.shape, like.variant))
    if not whole:
        weight = scale[..., None] * levels
        return replace(like, values=round_to_half(weight.reshape(like.values.shape)))
    return replace(like, levels=levels.reshape(like.levels.shape).astype(np.int8)).rescaled(scale.reshape(-1))


def at_share(problem: PrunedProblem, scale: Doubles, kept: int) -> Found:
    """Error feedback under the price that leaves about `kept` weights."""
    factor = np.einsum("gkk->gk", spreading(problem.curvature))[:, None, :]
    cost = (problem.target / factor) ** 2
    price = float(np.partition(cost, cost.size - kept, axis=None)[cost.size - kept])
    low, high = 0.0, np.inf
    best, distance = problem.target, np.inf
    for _ in range(PRICES):
        levels = error_feedback(replace(problem, price=price), scale)
        count = int(np.count_nonzero(levels))
        if abs(count - kept) < distance:
            best, distance = levels, abs(count - kept)
        if distance <= CLOSE * kept:
            break
        if count > kept:
            low = price
        else:
            high = price
        price = 2 * price if np.isinf(high) else high / 2 if low == 0 else float(np.sqrt(low * high))
    return best, scale


def chosen(problem: PrunedProblem, found: Found, kept: int) -> Mask:
    """The `kept` weights whose not being zero lowers the error most."""
    return largest(problem.benefit(*found), kept)
