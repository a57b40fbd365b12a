"""Losses of single choices, and of pairs from how the changes of the outputs that choices cause alone add up.

To second order the loss of a policy is half of x' G x with G[i, j] = mean over images of dz_i' F dz_j, where dz_i is the
change of the logits by choice i alone and F the Fisher matrix of the softmax (sketch.py): the Gauss-Newton matrix of the
loss, seen from the choices. It takes one evaluation for each choice, not one for each pair as CLADO (arXiv 2307.05657).

Single losses L are measured, at the temperature of F, and G gives their correlations:

    score(i, j) = sqrt(L_i L_j) G[i, j] / sqrt(G[i, i] G[j, j])

which stays positive semidefinite, as long as entries between choices of one layer are kept. The temperature matters more
than the pairs (tempered.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from bitplan.profiles.estimators.cost import walk_cost
from bitplan.profiles.estimators.method import Cost, Matrix, Measured
from bitplan.profiles.estimators.separable import loss_alone
from bitplan.profiles.estimators.sketch import output_change
from bitplan.profiles.estimators.tempered import TEMPERATURE
from bitplan.profiles.journal import Journal
from bitplan.profiles.loss_walk import Job, LossWalk, Observation, Progress
from bitplan.profiles.metrics import METRICS, Outputs
from bitplan.profiles.workers import HERE, Workers

Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Gram:
    """Costs what `separable` costs. Pairs need no labels; single losses only where the metric is task."""

    temperature: float = TEMPERATURE
    metrics: tuple[str, ...] = METRICS
    incremental: bool = False

    def cost(self, job: Job) -> Cost:
        return walk_cost(job)

    def measure(
        self, job: Job, journal: Journal | None = None, progress: Progress | None = None, workers: Workers = HERE
    ) -> Measured:
        observe = partial(observation, job, self.temperature, self.temperature)
        rows = LossWalk(job, observe, journal, progress, workers).run()
        increases = {choice: found[:, 0] for choice, found in rows.items()}
        vectors = np.stack([found[:, 1:] for found in rows.values()])
        pairs, errors = correlated(np.array([v.mean(dtype=np.float64) for v in increases.values()]), vectors)
        return Measured(increases, pairs, errors, semidefinite=True)


def observation(job: Job, temperature: float, loss_temperature: float, full: Outputs) -> Observation:
    """Of each image the loss increase, then the vector of the change of its outputs; each at its temperature."""
    loss = loss_alone(job, loss_temperature, full)
    change = output_change(job.network, job.metric, full, temperature)
    return lambda changed, part: np.column_stack([loss(changed, part), change(changed, part)])


def gram(vectors: Vectors) -> Matrix:
    """G [choices, choices], the mean over images of the inner products of vectors [choices, N, dimensions]."""
    flat = vectors.reshape(len(vectors), -1).astype(np.float64)
    return np.asarray(flat @ flat.T / vectors.shape[1])


def correlated(losses: NDArray[np.float64], vectors: Vectors) -> tuple[Matrix, Matrix]:
    """What pairs cost beyond the single losses [choices], and the standard error of that; negative single losses count
    as none. The diagonal, a choice with itself, is 0."""
    products = gram(vectors)
    norms = np.sqrt(np.maximum(np.diag(products), 0))
    roots = np.divide(np.sqrt(np.maximum(losses, 0)), norms, out=np.zeros_like(norms), where=norms > 0)
    factors = 2 * np.outer(roots, roots)
    images = vectors.shape[1]
    squares = np.zeros_like(products)
    for number in range(images):
        one = vectors[:, number].astype(np.float64)
        squares += np.square(one @ one.T)
    variances = np.maximum(squares / images - np.square(products), 0)
    pairs, errors = factors * products, factors * np.sqrt(variances / max(images - 1, 1))
    pairs = (pairs + pairs.T) / 2
    np.fill_diagonal(pairs, 0)
    np.fill_diagonal(errors, 0)
    return pairs, errors


METHOD = Gram()
