"""The temperature by which full-precision outputs have to be softened before losses measured on them say enough.

On images that a network was trained on its outputs are all but certain: a change of logits that costs much on other images
costs next to nothing there. Softened outputs, as in distillation (Hinton et al., arXiv 1503.02531), make all classes count. On
images that it has not seen they need no softening, and suffer from it: at temperature 3 the 1000 scores of an ImageNet network
are as good as even, and the loss becomes the variance of the change of the logits (decision 0010).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bitplan.network import Network, Softmax
from bitplan.profiles.metrics import Outputs, effective_metric, log_probabilities, softened

TEMPERATURES = (1.0, 2.0, 3.0)
"""In this order; benchmarks/estimators.py shows what each gives."""

LEAST_ENTROPY = 0.1
"""Mean entropy over its largest value, the logarithm of the number of classes. Outputs of ResNet-20 on its training images have
.004, of EfficientNet-Lite0 on validation images .21."""


def fitting_temperature(network: Network, metric: str, full: Outputs) -> float:
    """The lowest of TEMPERATURES at which the softened outputs of all images are uncertain enough, else the highest. 1 for
    metrics other than kl, which know no temperature."""
    if effective_metric(network, metric) != "kl":
        return 1.0
    name = network.outputs[0]
    log_p = log_probabilities(full[name], isinstance(network.by_name[name].op, Softmax))
    for temperature in TEMPERATURES[:-1]:
        if relative_entropy(softened(log_p, temperature)) >= LEAST_ENTROPY:
            return temperature
    return TEMPERATURES[-1]


def relative_entropy(log_p: NDArray[np.float64]) -> float:
    """The mean entropy of rows of log probabilities [N, classes], over that of even ones: 0..1."""
    return float(-(np.exp(log_p) * log_p).sum(-1).mean() / np.log(log_p.shape[-1]))
