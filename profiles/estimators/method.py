"""What an estimator does, and what comes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bitplan.profiles.journal import Journal
from bitplan.profiles.loss_walk import Choice, Job, Progress
from bitplan.profiles.workers import HERE, Workers

Matrix = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Cost:
    """Executions of the network, or of a part of it, over all images; `passes`: what they amount to in whole forward
    passes, by multiplications."""

    evaluations: int
    passes: float

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.evaluations + other.evaluations, self.passes + other.passes)


@dataclass(frozen=True)
class Measured:
    """Loss increases float32 [N] of every choice of a job; `pairs` and their standard errors [choices, choices], in the
    order of `increases`, as in LossProfile. `cost`: where it was less than stated before."""

    increases: Mapping[Choice, NDArray[np.float32]]
    pairs: Matrix | None = None
    pair_errors: Matrix | None = None
    semidefinite: bool = False
    cost: Cost | None = None


class Method(Protocol):
    """One way to measure a job. `metrics`: those that it can measure. A method whose entries do not depend on the other
    choices of the job is `incremental`: a profile that lacks some is completed."""

    metrics: tuple[str, ...]
    incremental: bool

    def cost(self, job: Job) -> Cost:
        """What `measure` will take, at most."""

    def measure(
        self, job: Job, journal: Journal | None = None, progress: Progress | None = None, workers: Workers = HERE
    ) -> Measured:
        """Goes on from what the journal holds. A method of few passes may leave the workers out. Raises DataError for
        labels that do not fit."""
