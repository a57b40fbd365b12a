"""The loss of every choice alone, after local recovery, by forward evaluation: sum over layers of L(layer changed).

The full-precision values of all images are kept at one point of the network and moved through it layer by layer; for
each variant of a layer only the rest of the network is executed: about half a forward pass per choice.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from bitplan.profiles.estimators.cost import walk_cost
from bitplan.profiles.estimators.method import Cost, Measured
from bitplan.profiles.journal import Journal
from bitplan.profiles.loss_walk import Job, LossWalk, Progress
from bitplan.profiles.metrics import METRICS, Increase, Outputs, increase
from bitplan.profiles.workers import HERE, Workers


@dataclass(frozen=True)
class Separable:
    """Exact for a single change; says nothing of how changes add up. Works without labels for every metric but task."""

    temperature: float = 1.0
    metrics: tuple[str, ...] = METRICS
    incremental: bool = True

    def cost(self, job: Job) -> Cost:
        return walk_cost(job)

    def measure(
        self, job: Job, journal: Journal | None = None, progress: Progress | None = None, workers: Workers = HERE
    ) -> Measured:
        found = LossWalk(job, partial(loss_alone, job, self.temperature), journal, progress, workers).run()
        return Measured({choice: rows[:, 0] for choice, rows in found.items()})


def loss_alone(job: Job, temperature: float, full: Outputs) -> Increase:
    """The loss increase of each image, at a temperature."""
    return increase(job.network, job.metric, full, job.labels, temperature)


METHOD = Separable()
