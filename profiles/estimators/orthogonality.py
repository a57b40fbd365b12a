"""OMPQ (arXiv 2109.07865, sections 3.1 and 3.3): a layer whose features resemble those of no other layer deserves bits.

    ORM(i, j) = ||Y_j' Y_i||_F^2 / (||Y_i' Y_i||_F ||Y_j' Y_j||_F)      features Y [N, numbers] of layers i, j
    importance(i) = exp(-sum over j != i of ORM(i, j))
    bits(i) counts    (mean of the importances of layers i, i + 1, ...)

from the full-precision network alone. The loss of a variant is the importance times the bits per weight that it saves
against float32: a scale of its own, of which a link makes a loss. Its per-image values are the jackknife's pseudo-values,
so that their mean and standard error are those of the importance.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from bitplan.kernels.artifact import layer_bytes
from bitplan.network import Node
from bitplan.policies.realise.front import Front, count_images, slices, take
from bitplan.profiles.estimators.method import Cost, Measured
from bitplan.profiles.journal import Journal
from bitplan.profiles.loss_walk import Job, Progress, chunk_size
from bitplan.profiles.metrics import METRICS
from bitplan.profiles.workers import HERE, Workers
from bitplan.simulate import Simulator

Kernel = NDArray[np.float64]

FLOAT_BITS = 32


@dataclass(frozen=True)
class Orthogonality:
    """One forward pass where the images fit into the memory; any metric, since it measures none."""

    metrics: tuple[str, ...] = METRICS
    incremental: bool = False

    def cost(self, job: Job) -> Cost:
        chunks = -(-count_images(job.images) // chunk_size(Simulator(job.network, job.weights), job))
        return Cost(chunks, float(chunks))  # each chunk beside every one: as many passes over all as there are chunks

    def measure(
        self, job: Job, journal: Journal | None = None, progress: Progress | None = None, workers: Workers = HERE
    ) -> Measured:
        names = [node.name for node in job.network.layers]
        importances = pseudo_importances(kernels(job, progress))
        increases = {}
        for layer, variant in sorted(job.choices, key=lambda choice: (names.index(choice[0]), choice[1])):
            node = job.network.by_name[layer]
            bits = 8 * layer_bytes(job.network, node, variant) / job.network.weight_shape(node).count
            saved = max(FLOAT_BITS - bits, 0.0)
            increases[layer, variant] = (importances[names.index(layer)] * saved).astype(np.float32)
        return Measured(increases)


def kernels(job: Job, progress: Progress | None = None) -> list[Kernel]:
    """Y Y' [N, N] of every layer's output; ||Y_j' Y_i||_F^2 is the inner product of two of them. Images that do not fit
    into the memory together go through the network in chunks, each chunk once beside every later one."""
    simulator, layers = Simulator(job.network, job.weights), job.network.layers
    chunks = slices(0, count_images(job.images), chunk_size(simulator, job))
    found = [np.zeros((chunks[-1].stop, chunks[-1].stop)) for _ in layers]
    pairs = [(a, b) for number, a in enumerate(chunks) for b in chunks[number:]]
    for pair, (a, b) in enumerate(pairs):
        first = Front.of_images(simulator, take(job.images, a), job.batch)
        second = first if a == b else Front.of_images(simulator, take(job.images, b), job.batch)
        for number, node in enumerate(layers):
            if progress:
                progress(pair * len(layers) + number, len(pairs) * len(layers), node.name)
            for front in {id(first): first, id(second): second}.values():
                front.advance(job.network.nodes.index(node) + 1)
            block = (_features(first, node) @ _features(second, node).T).double().numpy()
            found[number][a, b], found[number][b, a] = block, block.T
    if progress:
        progress(len(pairs) * len(layers), len(pairs) * len(layers), "")
    return found


def _features(front: Front, node: Node) -> torch.Tensor:
    return torch.cat([values[node.name].reshape(len(values[node.name]), -1) for values in front.batches])


def pseudo_importances(found: list[Kernel]) -> NDArray[np.float64]:
    """The weight that each layer's bits have, as pseudo-values [layers, N]."""
    count = len(found[0])
    whole = np.array([[float((a * b).sum()) for b in found] for a in found])
    # without an image its row and its column are gone, and its own entry is in both
    gone = np.array([[2 * (a * b).sum(1) - np.diag(a) * np.diag(b) for b in found] for a in found])
    everything = _weights(whole[:, :, None])[:, 0]
    if count == 1:
        return np.asarray(everything[:, None])
    return np.asarray(count * everything[:, None] - (count - 1) * _weights(whole[:, :, None] - gone))


def _weights(products: NDArray[np.float64]) -> NDArray[np.float64]:
    """[layers, layers, K] inner products to [layers, K] weights of bits."""
    norms = np.sqrt(np.maximum(np.einsum("iik->ik", products), np.finfo(np.float64).tiny))
    similar = products / (norms[:, None] * norms[None, :])
    importances = np.exp(1 - similar.sum(1))  # less the similarity to itself
    behind = np.cumsum(importances[::-1], 0)[::-1]
    return np.asarray(behind / np.arange(len(importances), 0, -1)[:, None])


METHOD = Orthogonality()
