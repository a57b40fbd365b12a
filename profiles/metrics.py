"""How much worse one image's outputs are: the loss increases that a loss profile holds, all as float32 [N].

    kl             Kullback-Leibler divergence KL(full || changed) of the softmax over an output's features; no labels
    task           cross entropy to the labels, changed less full precision; may be negative for single images
    squared_error  mean squared difference, divided by the variance of the full-precision output over all images

`kl` and `task` need a single output that is a vector of two or more features. For any other network `kl` becomes
`squared_error`, averaged over the outputs; a profile names the metric that was really used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from bitplan.errors import DataError, UsageError
from bitplan.network import Network, Softmax

Outputs = Mapping[str, NDArray[np.float32]]
Labels = NDArray[np.integer]
Increase = Callable[[Outputs, slice], NDArray[np.float32]]
"""Loss increases [n] of the images in a slice, from the changed network's outputs on them."""

METRICS = ("kl", "task", "squared_error")
TINY = 1e-30
"""Stands for probabilities that have underflowed behind a softmax output."""


def effective_metric(network: Network, metric: str) -> str:
    """The metric that is used for this network when `metric` is asked for. Raises UsageError where there is none."""
    if metric not in METRICS:
        raise UsageError(f"loss metric {metric!r} is not one of {', '.join(METRICS)}")
    if metric == "squared_error" or is_classifier(network):
        return metric
    if metric == "task":
        raise UsageError(
            "the task loss needs one output that is a vector of class scores, and this network has "
            f"{[network.by_name[name].shape for name in network.outputs]}; use the metric kl"
        )
    return "squared_error"


def is_classifier(network: Network) -> bool:
    """One output, a vector of two features or more."""
    shapes = [network.by_name[name].shape for name in network.outputs]
    return len(shapes) == 1 and len(shapes[0]) == 1 and shapes[0][0] > 1


def increase(
    network: Network, metric: str, full: Outputs, labels: Labels | None = None, temperature: float = 1.0
) -> Increase:
    """The function that measures loss increases against the full-precision outputs `full` of all images. `temperature`
    softens both sides of `kl`, T^2 KL(softmax(z / T) || softmax(z' / T)), as in distillation (arXiv 1503.02531).
    Raises DataError where labels are needed and missing, of the wrong number, or not classes."""
    metric = effective_metric(network, metric)
    if metric == "squared_error":
        return _squared_error(full)
    name = network.outputs[0]
    softmaxed = isinstance(network.by_name[name].op, Softmax)
    reference = log_probabilities(full[name], softmaxed)
    if metric == "kl":
        soft = softened(reference, temperature)

        def kl(changed: Outputs, part: slice) -> NDArray[np.float32]:
            after = softened(log_probabilities(changed[name], softmaxed), temperature)
            return np.asarray(np.float32(temperature**2) * divergence(soft[part], after), np.float32)

        return kl
    classes = _checked_labels(labels, reference.shape)

    def task(changed: Outputs, part: slice) -> NDArray[np.float32]:
        after, chosen = log_probabilities(changed[name], softmaxed), classes[part, None]
        difference = np.take_along_axis(reference[part], chosen, 1) - np.take_along_axis(after, chosen, 1)
        return difference[:, 0].astype(np.float32)

    return task


def log_probabilities(scores: NDArray[np.float32], softmaxed: bool = False) -> NDArray[np.float64]:
    """log softmax over the last axis in double precision; `softmaxed` scores are probabilities already."""
    scores = scores.astype(np.float64)
    if softmaxed:
        return np.asarray(np.log(np.maximum(scores, TINY)))
    shifted = scores - scores.max(-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(-1, keepdims=True)))


def softened(log_p: NDArray[np.float64], temperature: float) -> NDArray[np.float64]:
    """The logarithm of probabilities ~ p^(1 / temperature), from that of p, over the last axis."""
    if temperature == 1:
        return log_p
    powers = log_p / temperature
    shifted = powers - powers.max(-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(-1, keepdims=True)))


def divergence(reference: NDArray[np.float64], changed: NDArray[np.float64]) -> NDArray[np.float32]:
    """KL(reference || changed) of each row of log probabilities [N, classes]; at least zero."""
    rows = (np.exp(reference) * (reference - changed)).sum(-1)
    return np.asarray(np.maximum(rows, 0), np.float32)


def _squared_error(full: Outputs) -> Increase:
    spread = {name: max(float(np.var(values, dtype=np.float64)), TINY) for name, values in full.items()}

    def squared_error(changed: Outputs, part: slice) -> NDArray[np.float32]:
        errors = []
        for name, values in full.items():
            difference = (changed[name].astype(np.float64) - values[part]).reshape(len(changed[name]), -1)
            errors.append((difference**2).mean(1) / spread[name])
        return np.asarray(np.mean(errors, 0), np.float32)

    return squared_error


def _checked_labels(labels: Labels | None, shape: tuple[int, ...]) -> NDArray[np.int64]:
    if labels is None:
        raise DataError("the task loss needs labels; give them, or use the metric kl, which needs none")
    count, classes = shape
    if labels.shape != (count,):
        raise DataError(f"there are {count} images but labels of shape {labels.shape}; give one class number per image")
    if labels.min() < 0 or labels.max() >= classes:
        raise DataError(
            f"labels run from {labels.min()} to {labels.max()}; the network has the classes 0..{classes - 1}"
        )
    return labels.astype(np.int64)
