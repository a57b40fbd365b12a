"""HAWQ-V2 (arXiv 1911.03852, section 3.2): mean trace of the Hessian of each layer's weights times what the variant
changes them by,

    loss(layer, variant) = tr(H) / (2 n) ||Q(w) - w||^2        n weights w

where the loss is the KL divergence to the full-precision network itself, so that no labels are needed: at full precision
its gradient is 0 and its Hessian is exactly J' F J, with J the derivative of the logits with respect to w and F the Fisher
matrix of the softmax. Then Hutchinson's estimate of the trace needs no second derivatives,

    tr(J' F J) = mean over random signs v of (J v)' F (J v),    J v = (z(w + h v) - z(w)) / h

PROBES changed networks for each layer. It sees neither activations in codes nor what local recovery repairs.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitplan.network import Node
from bitplan.policies.realise.front import Front, count_images, slices, take
from bitplan.policies.realise.pipeline import quantise
from bitplan.profiles.estimators.cost import shares_left
from bitplan.profiles.estimators.method import Cost, Measured
from bitplan.profiles.estimators.sketch import Sketch, output_change
from bitplan.profiles.journal import Journal
from bitplan.profiles.loss_walk import Job, Progress, chunk_size
from bitplan.profiles.workers import HERE, Workers
from bitplan.simulate import Simulator
from bitplan.variant import FLOAT32

PROBES = 8
STEP = 0.01
"""h, as a fraction of the root mean square of the layer's weights."""


@dataclass(frozen=True)
class HessianTrace:
    """Per image, so that the standard error over images is known; that of the probes is within it."""

    probes: int = PROBES
    metrics: tuple[str, ...] = ("kl", "squared_error")
    incremental: bool = False

    def cost(self, job: Job) -> Cost:
        left = shares_left(job.network)
        layers = [node for node in job.network.layers if any(name == node.name for name, _ in job.choices)]
        passes = sum(left[job.network.nodes.index(node)] for node in layers)
        return Cost(self.probes * len(layers) + 2, self.probes * passes + 2)

    def measure(
        self, job: Job, journal: Journal | None = None, progress: Progress | None = None, workers: Workers = HERE
    ) -> Measured:
        layers = [node for node in job.network.layers if any(name == node.name for name, _ in job.choices)]
        traces = self._traces(job, layers, journal, progress)
        increases = {}
        for node in layers:
            weight = job.weights[f"{node.name}.weight"]
            for variant in sorted(variant for name, variant in job.choices if name == node.name):
                change = quantise(job.network, node, job.weights, variant).weight.reshape(weight.shape) - weight
                error = float(np.square(change, dtype=np.float64).sum())
                increases[node.name, variant] = (traces[node.name] * (error / (2 * weight.size))).astype(np.float32)
        return Measured(increases)

    def _traces(
        self, job: Job, layers: list[Node], journal: Journal | None, progress: Progress | None
    ) -> dict[str, NDArray[np.float32]]:
        """tr(J' F J) [N] of every layer."""
        found = dict(journal.records) if journal else {}
        simulator = Simulator(job.network, job.weights)
        chunks = slices(0, count_images(job.images), chunk_size(simulator, job))
        names = {
            (number, node.name): json.dumps([number, node.name]) for number in range(len(chunks)) for node in layers
        }
        for number, chunk in enumerate(chunks):
            front = Front.of_images(simulator, take(job.images, chunk), job.batch)
            full = front.fork()
            full.advance(len(job.network.nodes))
            change = output_change(
                job.network,
                job.metric,
                {name: np.concatenate([v[name].numpy() for v in full.batches]) for name in job.network.outputs},
            )
            for done, node in enumerate(layers):
                name = names[number, node.name]
                if progress:
                    progress(number * len(layers) + done, len(names), node.name)
                if name not in found:
                    front.advance(job.network.nodes.index(node))
                    found[name] = self._trace(job, node, simulator, front, change)
                    if journal:
                        journal.add(name, found[name])
        if progress:
            progress(len(names), len(names), "")
        return {
            node.name: np.concatenate([found[names[number, node.name]] for number in range(len(chunks))])
            for node in layers
        }

    def _trace(self, job: Job, node: Node, simulator: Simulator, front: Front, change: Sketch) -> NDArray[np.float32]:
        """tr(J' F J) of the front's images [n] and one layer, which the front stands at."""
        parts = slices(0, sum(len(next(iter(values.values()))) for values in front.batches), job.batch)
        total = np.zeros(parts[-1].stop)
        for probe in range(self.probes):
            weights, step = _probe(job, node, probe)
            layer = quantise(job.network, node, weights, FLOAT32)
            for part, values in zip(parts, front.batches, strict=True):
                outputs = simulator.resume(values, front.position, {node.name: layer})
                vectors = change({key: value.numpy() for key, value in outputs.items()}, part)
                total[part] += np.square(vectors, dtype=np.float64).sum(1) / step**2
        return (total / self.probes).astype(np.float32)


def _probe(job: Job, node: Node, number: int) -> tuple[dict[str, NDArray[np.float32]], float]:
    """The layer's weights after a step along random signs, and the length of the step for one weight."""
    name = f"{node.name}.weight"
    weight = np.asarray(job.weights[name], np.float32)
    step = STEP * float(np.sqrt(np.square(weight, dtype=np.float64).mean())) or STEP
    signs = np.random.default_rng([number, *node.name.encode()]).choice(np.array([-1.0, 1.0]), weight.shape)
    moved = (weight + step * signs).astype(np.float32)
    return {name: moved, f"{node.name}.bias": job.weights[f"{node.name}.bias"]}, step


METHOD = HessianTrace()
