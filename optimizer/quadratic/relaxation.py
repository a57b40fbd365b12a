"""The doubly nonnegative relaxation of a quadratic program with one-hot groups, and a safe dual bound.

Choices x are lifted to Y = y y' with y = (1, x, s), s the slack of each limit scaled to [0, 1]. Y lies in two convex sets:

    positive semidefinite on the face that the equations of y span (facial reduction): Y = V R V', R psd;
    P: each pair of groups has one joint distribution over their allowed pairs of options, within a group Y is diagonal
    and its diagonal is the row of the 1, a slack stands in [0, 1] beside everything.

The minimum of <C, Y> over both is found by the Peaceman-Rachford splitting of Graham, Hu, Im, Li and Wolkowicz
(INFORMS Journal on Computing 34, 2022, section 3), which alternates between the two. Any multiplier Z with V' Z V <= 0
proves that min over P of <C + Z, Y> is a bound, and that minimum falls apart into blocks. A limit with pair costs takes
part twice: through its slack as a linear limit that is never tighter, and in C, at a price that dual ascent finds. So a multiplier is projected,
the rest is read off block by block; nothing needs to have converged. The same blocks say what the bound would be if an
option, or a pair of options, were chosen: what cannot beat the incumbent is left out for good.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bitplan.optimizer.problem import Integers, Mask
from bitplan.optimizer.quadratic.limits import LinearLimits
from bitplan.optimizer.quadratic.matrices import Floats, Form, Matrices

STEP = 0.9
"""Under-relaxation of both multiplier steps; 1 need not converge."""
ASCENT = 4.0
"""Step of the prices of limits, in penalties."""
MOST_LIMITS = 8
"""Limits that get a slack row, the tightest ones; a relaxation without the others stays valid."""
NEVER = -1e30
"""An entry that a projection onto a simplex always sets to zero."""
ROUNDING = 1e-14
"""Relative error of each entry of a computed product or eigenvector, some fifty times what is seen."""


@dataclass(frozen=True, eq=False)
class Bounds:
    """In units of the objective: a bound of all choices left; of those with an option [slots]; with a pair of
    options [slots, slots]. Infinite where nothing is left."""

    whole: float
    options: Floats
    pairs: Floats


@dataclass(eq=False)
class Iterate:
    """The splitting's state: the point in P and the multiplier [rows, rows], and the prices of the limits with pair
    costs, in units of the objective per unit of theirs."""

    point: Floats
    multiplier: Floats
    prices: Floats


class Relaxation:
    """Of the choices among `kept` options (numbers within 0..n, ascending; at least one per group) whose pairs are
    `allowed` [n, n]. Slots are padded so that every group has as many; `option` [slots] names what stands there, -1 for
    nothing. Rows: the 1, the slots, one slack per limit."""

    def __init__(self, program: Matrices, limits: LinearLimits, kept: Integers, allowed: Mask) -> None:
        self.program, self.limits, self.kept = program, limits, kept
        group_of = np.searchsorted(program.offsets, kept, side="right") - 1
        counts = np.bincount(group_of, minlength=program.groups)
        self.groups, self.width = program.groups, int(counts.max())
        self.slots = self.groups * self.width
        place = np.arange(len(kept)) - np.concatenate([[0], np.cumsum(counts)])[group_of]
        self.slot = group_of * self.width + place
        self.option = np.full(self.slots, -1)
        self.option[self.slot] = kept
        self.filled = (self.option >= 0).reshape(self.groups, self.width)
        self.first, self.second = np.triu_indices(self.groups, 1)
        self.allow(allowed)
        self._limits()
        self._face()
        self._costs()

    @property
    def rows(self) -> int:
        return 1 + self.slots + len(self.slack)

    def allow(self, allowed: Mask) -> None:
        """Takes over which pairs of options [n, n] may be chosen together."""
        spread = np.zeros((self.slots, self.slots), np.bool_)
        spread[np.ix_(self.slot, self.slot)] = allowed[np.ix_(self.kept, self.kept)]
        self.allowed = np.ascontiguousarray(self._blocks(spread)[self.first, self.second])

    def _limits(self) -> None:
        """Slack rows: s = slack[:, 0] + slack[:, 1:] @ x, between 0 and 1."""
        found: list[tuple[float, Floats]] = []
        for linear, right in zip(self.limits.linear, self.limits.right, strict=True):
            costs = np.zeros(self.slots)
            costs[self.slot] = linear[self.kept]
            table = costs.reshape(self.groups, self.width)
            least = np.where(self.filled, table, np.inf).min(1).sum()
            extent = np.where(self.filled, table, -np.inf).max(1).sum() - least
            room = right - least
            if 0 <= room < extent:
                row = np.concatenate([[right], -costs]) / max(room, 1e-3 * extent)
                found.append((room / extent, row))
        found.sort(key=lambda entry: entry[0])
        rows = [row for _, row in found[:MOST_LIMITS]]
        self.slack = np.stack(rows) if rows else np.zeros((0, 1 + self.slots))

    def _face(self) -> None:
        """V [rows, dimension], orthonormal: all y that meet the equations."""
        basis = np.zeros((1 + self.slots, 1 + len(self.kept) - self.groups))
        basis[0, 0] = 1
        column = 1
        for group in range(self.groups):
            places = 1 + group * self.width + np.flatnonzero(self.filled[group])
            basis[places, 0] = 1 / len(places)
            for other in places[1:]:
                basis[places[0], column], basis[other, column] = -1, 1
                column += 1
        self.face: Floats = np.linalg.qr(np.concatenate([basis, self.slack @ basis]))[0]

    def _costs(self) -> None:
        """The objective without its constant, and each limit with pair costs as what it is exceeded by, as matrices on
        the face, divided by their norms."""
        self.cost, self.scale = self._on_face(self.program.objective, 0.0)
        found = [
            self._on_face(form, form.constant - form.limit) for form in self.program.limits if form.pairs is not None
        ]
        self.excess = np.array([matrix for matrix, _ in found]).reshape(len(found), self.rows, self.rows)
        self.excess_scale = np.array([scale for _, scale in found])

    def _on_face(self, form: Form, constant: float) -> tuple[Floats, float]:
        matrix = np.zeros((self.rows, self.rows))
        places = 1 + self.slot
        matrix[0, 0] = constant
        if form.pairs is not None:
            matrix[np.ix_(places, places)] = form.pairs[np.ix_(self.kept, self.kept)] / 2
        matrix[0, places] = matrix[places, 0] = form.linear[self.kept] / 2
        reduced = self.face.T @ matrix @ self.face
        scale = max(float(np.linalg.norm(reduced)), 1e-12)
        return self.face @ (reduced / scale) @ self.face.T, scale

    def _priced(self, prices: Floats) -> Floats:
        """The objective with the limits' excess at these prices (any that are not negative give a valid bound)."""
        if not len(prices):
            return self.cost
        return self.cost + np.tensordot(prices * self.excess_scale / self.scale, self.excess, 1)

    def start(self) -> Iterate:
        """All options alike, and the multiplier that takes the positive part of the objective off, but for what it says
        of that point: a bound that is close at once where the objective is nearly semidefinite, as sums of squares are."""
        iterate = self._alike()
        values, vectors = np.linalg.eigh(self.face.T @ self.cost @ self.face)
        point = self.face.T @ iterate.point[0]
        beside = vectors - np.outer(point, (point / (point @ point)) @ vectors)
        half = self.face @ (beside * np.sqrt(np.maximum(values, 0.0)))
        iterate.multiplier = -(half @ half.T)
        return iterate

    def _alike(self) -> Iterate:
        share = np.where(self.filled, 1 / self.filled.sum(1, keepdims=True), 0.0)
        y = np.concatenate([[1.0], share.ravel(), np.full(len(self.slack), 0.5)])
        return Iterate(np.outer(y, y), np.zeros((self.rows, self.rows)), np.zeros(len(self.excess)))

    def inherit(self, parent: Relaxation, iterate: Iterate) -> Iterate:
        """The state of a relaxation with more options, cut down to this one's, in this one's units."""
        mine = np.concatenate([[0], 1 + self.slot])
        at = np.searchsorted(parent.kept, self.kept)
        theirs = np.concatenate([[0], 1 + parent.slot[at]])
        slacks = min(len(self.slack), len(parent.slack)) if len(self.slack) == len(parent.slack) else 0
        mine = np.concatenate([mine, 1 + self.slots + np.arange(slacks)])
        theirs = np.concatenate([theirs, 1 + parent.slots + np.arange(slacks)])
        result = self._alike()
        into, out = np.ix_(mine, mine), np.ix_(theirs, theirs)
        result.point[into] = iterate.point[out]
        # the dual slack matrix cost + multiplier is what carries over: costs on another face differ
        dual = (parent._priced(iterate.prices) + iterate.multiplier)[out] * (parent.scale / self.scale)
        result.prices = iterate.prices
        result.multiplier[into] = dual - self._priced(result.prices)[into]
        return result

    def improve(self, iterate: Iterate, steps: int, penalty: float, stopped: Callable[[], bool]) -> None:
        """So many steps of the splitting, in place, fewer once `stopped`."""
        face, point, multiplier = self.face, iterate.point, iterate.multiplier
        prices = iterate.prices * self.excess_scale / self.scale
        for _ in range(steps):
            if stopped():
                break
            reduced = face.T @ (point + multiplier / penalty) @ face
            values, vectors = np.linalg.eigh(reduced + reduced.T)
            positive = values > 0
            half = face @ (vectors[:, positive] * np.sqrt(values[positive] / 2))
            semidefinite = half @ half.T
            multiplier += STEP * penalty * (point - semidefinite)
            cost = self.cost + np.tensordot(prices, self.excess, 1) if len(prices) else self.cost
            point = self._project(semidefinite - (cost + multiplier) / penalty)
            multiplier += STEP * penalty * (point - semidefinite)
            prices = np.maximum(prices + ASCENT * penalty * (self.excess * point).sum((1, 2)), 0.0)
        iterate.point, iterate.multiplier = point, multiplier
        iterate.prices = prices * self.scale / self.excess_scale

    def _blocks(self, matrix: Floats | Mask) -> Floats | Mask:
        """[slots, slots] as [groups, groups, width, width]."""
        return matrix.reshape(self.groups, self.width, self.groups, self.width).transpose(0, 2, 1, 3)

    def _project(self, matrix: Floats) -> Floats:
        """The nearest point of P to a symmetric matrix."""
        inner = slice(1, 1 + self.slots)
        result = np.zeros_like(matrix)
        result[0, 0] = 1
        blocks = self._blocks(matrix[inner, inner])[self.first, self.second]
        entries = np.where(self.allowed, blocks, NEVER).reshape(len(blocks), self.width**2)
        joint = _onto_simplex(entries).reshape(blocks.shape)
        spread = np.zeros((self.groups, self.groups, self.width, self.width))
        spread[self.first, self.second] = joint
        spread[self.second, self.first] = joint.transpose(0, 2, 1)
        result[inner, inner] = spread.transpose(0, 2, 1, 3).reshape(self.slots, self.slots)
        own = (np.diagonal(matrix)[inner] + 2 * matrix[0, inner]) / 3
        shares = _onto_simplex(np.where(self.filled, own.reshape(self.filled.shape), NEVER)).ravel()
        result[0, inner] = result[inner, 0] = shares
        diagonal = np.arange(1, 1 + self.slots)
        result[diagonal, diagonal] = shares
        slack = np.clip(matrix[1 + self.slots :], 0.0, 1.0)
        slack[:, inner] *= self.filled.ravel()
        result[1 + self.slots :], result[:, 1 + self.slots :] = slack, slack.T
        return result

    def bounds(self, iterate: Iterate) -> Bounds:
        """Valid for any multiplier: what of it is positive on the face is taken off first."""
        multiplier = iterate.multiplier
        reduced = self.face.T @ multiplier @ self.face
        values, vectors = np.linalg.eigh((reduced + reduced.T) / 2)
        positive = values > 0
        half = self.face @ (vectors[:, positive] * np.sqrt(values[positive]))
        dual = self._priced(iterate.prices) + multiplier - half @ half.T
        dual = (dual + dual.T) / 2
        inner, shape = slice(1, 1 + self.slots), (self.groups, self.width)
        constant = self.program.objective.constant
        blocks = np.where(self.allowed, self._blocks(dual[inner, inner])[self.first, self.second], np.inf)
        least = blocks.min((1, 2), initial=np.inf)
        own = (np.diagonal(dual)[inner] + 2 * dual[0, inner]).reshape(shape)
        own = np.where(self.filled, own, np.inf)
        slack, forced_slack = self._slack_bounds(dual)
        whole = dual[0, 0] + 2 * least.sum() + own.min(1).sum() + slack
        if np.isposinf(own.min(1)).any() or np.isposinf(least).any():  # a group, or two together, can take nothing
            everything = np.full((self.slots, self.slots), np.inf)
            return Bounds(np.inf, everything[0], everything)
        over = np.zeros((self.groups, self.groups, self.width))
        over[self.first, self.second] = blocks.min(2) - least[:, None]
        over[self.second, self.first] = blocks.min(1) - least[:, None]
        options = own - own.min(1, keepdims=True) + 2 * over.sum(1) + forced_slack
        finite = np.where(np.isfinite(over), over, 0.0)  # an infinite option stays so by itself
        joint = (
            options[self.first][:, :, None]
            + options[self.second][:, None, :]
            - 2 * finite[self.first, self.second][:, :, None]
            - 2 * finite[self.second, self.first][:, None, :]
            + 2 * (blocks - least[:, None, None])
            # the slacks' part of both options is a minimum with 0 of a sum: counted at most once
            - np.minimum(forced_slack[self.first][:, :, None], forced_slack[self.second][:, None, :])
        )
        pairs = np.full((self.groups, self.groups, self.width, self.width), np.inf)
        pairs[self.first, self.second] = joint
        pairs[self.second, self.first] = joint.transpose(0, 2, 1)
        flat = pairs.transpose(0, 2, 1, 3).reshape(self.slots, self.slots)
        # what the dual matrix may be positive by on the face, times the largest y @ y
        error = ROUNDING * self.rows * float(np.linalg.norm(dual)) * (1 + self.groups + len(self.slack))
        stated = [(value - error) * self.scale + constant for value in (whole, whole + options.ravel(), whole + flat)]
        if not np.isfinite(stated[0]):  # numbers beyond what can be computed with prove nothing
            nothing = np.full((self.slots, self.slots), -np.inf)
            return Bounds(-np.inf, nothing[0], nothing)
        return Bounds(float(stated[0]), stated[1], stated[2])

    def _slack_bounds(self, dual: Floats) -> tuple[float, Floats]:
        """The least that the slack rows add, and how much more with each option [groups, width]: a slack t in [0, 1]
        stands beside every group with t in all, beside another slack or itself with 0 to t."""
        if not len(self.slack):
            return 0.0, np.zeros((self.groups, self.width))
        start = 1 + self.slots
        beside = dual[start:, 1:start].reshape(-1, self.groups, self.width)
        beside = np.where(self.filled, beside, np.inf)
        among = dual[start:, start:]
        own = np.minimum(among, 0).sum(1)
        each = 2 * dual[start:, 0] + own + 2 * beside.min(2).sum(1)
        with_option = each[:, None, None] + 2 * (beside - beside.min(2, keepdims=True))
        least = np.minimum(each, 0)
        forced = np.minimum(with_option, 0) - least[:, None, None]
        return float(least.sum()), np.where(self.filled, forced.sum(0), 0.0)

    def shares(self, iterate: Iterate) -> Floats:
        """How much of each option the relaxation chooses: [slots]."""
        return np.asarray(iterate.point[0, 1 : 1 + self.slots])


def _onto_simplex(rows: Floats) -> Floats:
    """Each row's nearest distribution (sort and threshold)."""
    falling = -np.sort(-rows, axis=1)
    excess = np.cumsum(falling, axis=1) - 1
    count = (falling * np.arange(1, rows.shape[1] + 1) > excess).sum(1)
    threshold = excess[np.arange(len(rows)), count - 1] / count
    return np.asarray(np.maximum(rows - threshold[:, None], 0.0))
