"""The change of a network's outputs, as a vector for each image whose inner products are what changes cost together.

To second order KL(p || q) of a change dz of the logits is dz' F dz / 2 with the Fisher matrix F = diag(p) - p p' of the
softmax. With u = sqrt(p) (dz - p . dz), element by element, <u_i, u_j> = dz_i' F dz_j. A temperature above 1 softens p, so
that classes which the full-precision network all but excludes still count.

Vectors longer than DIMENSIONS are count sketches (Charikar, Chen, Farach-Colton 2002): every number is added, under a
random sign, to one of DIMENSIONS sums. Inner products stay unbiased, and a Gram matrix of sketches stays positive
semidefinite. Signs are drawn anew for every image and are the same for all choices; the standard error of a mean over N
images is about 1 / sqrt(DIMENSIONS N) of the geometric mean of the two squared norms: 1 % for 128 images.
"""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from bitplan.network import Network, Softmax
from bitplan.profiles.metrics import TINY, Outputs, log_probabilities, softened

DIMENSIONS = 64

Vectors = NDArray[np.float32]
Sketch = Callable[[Outputs, slice], Vectors]
"""Vectors [n, dimensions] of the images in a slice, from the changed network's outputs on them."""


def output_change(network: Network, metric: str, full: Outputs, temperature: float = 1.0) -> Sketch:
    """Vectors u such that u . u / 2 is, for small changes, the KL divergence at this temperature (times its square), or
    exactly the squared error where that is the metric; `full` are the full-precision outputs of all images."""
    change = _logit_change(network, full, temperature) if metric != "squared_error" else _scaled_change(full)

    def sketch(changed: Outputs, part: slice) -> Vectors:
        vectors = change(changed, part)
        return (vectors if vectors.shape[1] <= DIMENSIONS else _count_sketch(vectors, part)).astype(np.float32)

    return sketch


def _logit_change(
    network: Network, full: Outputs, temperature: float
) -> Callable[[Outputs, slice], NDArray[np.float64]]:
    name = network.outputs[0]
    softmaxed = isinstance(network.by_name[name].op, Softmax)
    reference = log_probabilities(full[name], softmaxed)
    p = np.exp(softened(reference, temperature))

    def change(changed: Outputs, part: slice) -> NDArray[np.float64]:
        # log probabilities differ from logits by a number per image, which F does not see
        difference = log_probabilities(changed[name], softmaxed) - reference[part]
        mean = (p[part] * difference).sum(1, keepdims=True)
        return np.asarray(np.sqrt(p[part]) * (difference - mean))

    return change


def _scaled_change(full: Outputs) -> Callable[[Outputs, slice], NDArray[np.float64]]:
    def change(changed: Outputs, part: slice) -> NDArray[np.float64]:
        vectors = []
        for name, values in full.items():
            spread = max(float(np.var(values, dtype=np.float64)), TINY)
            difference = (changed[name].astype(np.float64) - values[part]).reshape(len(changed[name]), -1)
            vectors.append(difference * sqrt(2 / (difference.shape[1] * spread * len(full))))
        return np.concatenate(vectors, 1)

    return change


def _count_sketch(vectors: NDArray[np.float64], part: slice) -> NDArray[np.float64]:
    count, length = vectors.shape
    rows = -(-length // DIMENSIONS)
    padded = np.zeros((count, rows * DIMENSIONS))
    for number in range(count):
        random = np.random.default_rng([length, part.start + number])
        bits = np.unpackbits(np.frombuffer(random.bytes(-(-length // 8)), np.uint8), count=length)
        padded[number, :length] = vectors[number] * (1.0 - 2.0 * bits)
    # numbers far apart share a sum: neighbours, which are often alike, do not
    return np.asarray(padded.reshape(count, rows, DIMENSIONS).sum(1))
