"""Which limits a frontier is asked for: a grid over the range of bytes and latency, then wherever the curve bends.

Limits of one line share all but one of their numbers. Between two neighbours of a line nothing is known but that the
curve lies in the rectangle that they span; the line is refined where that rectangle is largest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from math import log

from bitplan.optimizer.frontier.epsilon import Answer, Limits

LEVELS = (6, 3)
"""Of bytes and of latency, in the first grid."""
SMALLEST_RECTANGLE = 1e-4
"""Of the whole picture: a smaller one is not refined."""
FLAT = 0.01
"""Of the largest loss: differences of losses below it hardly show."""


def levels(low: int, high: int, count: int) -> list[int]:
    """Limits from high down to low, by equal ratios."""
    if high <= low:
        return [low]
    if low <= 0 or count < 2:
        return [high, low]
    inner = (round(high * (low / high) ** (i / (count - 1))) for i in range(1, count - 1))
    return list(dict.fromkeys([high, *inner, low]))


def first_grid(low: Limits, high: Limits) -> list[Limits]:
    """All combinations of levels: the outline first, so that little time gives a coarse picture of everything."""
    axes = [levels(a, b, count) for a, b, count in zip(low, high, LEVELS, strict=False)]
    everything = list(product(*axes))
    outline = [
        limits for limits in everything if any(limit == axis[0] for limit, axis in zip(limits, axes, strict=True))
    ]
    return list(dict.fromkeys([*outline, *everything]))


@dataclass(frozen=True)
class Refinement:
    """Finds the next limits. `totals` and `loss` of an answer's choices; `low` and `high`: the range of the axes."""

    totals: Callable[[Answer], Limits]
    loss: Callable[[Answer], float]
    low: Limits
    high: Limits

    def next(self, answers: Sequence[Answer]) -> Limits | None:
        """The limits that halve the largest rectangle; None where all are small, or hold nothing more."""
        found = [answer for answer in answers if answer.choices is not None]
        if not found:
            return None
        losses = [self.loss(answer) for answer in found]
        flat = max(FLAT * max(losses), 1e-12)
        height = max(log((max(losses) + flat) / (min(losses) + flat)), 1e-12)
        best: tuple[float, Limits] | None = None
        for axis, below, above in self._neighbours(found):
            tight, used = below.limits[axis], self.totals(above)[axis]
            if used - 1 <= tight:  # the answers of all limits in between are known
                continue
            low, high = max(self.low[axis], 1), max(self.high[axis], 2)
            # what a limit just above `tight` may use is not known; the answer below uses this or less
            width = log(used / max(tight, 1)) / max(log(high / low), 1e-12)
            drop = log((self.loss(below) + flat) / (self.loss(above) + flat)) / height
            area = width * drop
            if area < SMALLEST_RECTANGLE or (best is not None and area <= best[0]):
                continue
            middle = min(max(round((max(tight, 1) * used) ** 0.5), tight + 1), used - 1)
            best = area, (*below.limits[:axis], middle, *below.limits[axis + 1 :])
        return None if best is None else best[1]

    def _neighbours(self, answers: Sequence[Answer]) -> Iterator[tuple[int, Answer, Answer]]:
        """The axis and the answers of neighbouring limits on every line, the tighter one first."""
        for axis in range(len(self.low)):
            lines: dict[Limits, list[Answer]] = {}
            for answer in answers:
                lines.setdefault((*answer.limits[:axis], *answer.limits[axis + 1 :]), []).append(answer)
            for line in lines.values():
                for below, above in pairwise(sorted(line, key=lambda answer: answer.limits[axis])):
                    yield axis, below, above
