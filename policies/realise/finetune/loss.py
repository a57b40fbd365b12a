"""What training lowers: the distance from the full-precision network's outputs, and the loss to labels where asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from bitplan.errors import UsageError
from bitplan.network import Network, Softmax

Outputs = Mapping[str, Tensor]
"""Every output by name, float32 [N, ...]."""

Loss = Callable[[Outputs, Outputs, Tensor | None], Tensor]
"""(outputs under training, full-precision outputs of the same images, labels [N] or None) to a scalar."""

TINY = 1e-30


def distillation(network: Network, temperature: float, task: float = 0.0) -> Loss:
    """For classifiers T^2 KL(softmax(z / T) || softmax(z' / T)) (arXiv 1503.02531), plus `task` times the cross entropy to
    labels; for any other network the mean squared error of each output over its variance in the batch."""
    if not is_classifier(network):
        return relative_squared_error
    name = network.outputs[0]
    softmaxed = isinstance(network.by_name[name].op, Softmax)

    def scores(outputs: Outputs) -> Tensor:
        return outputs[name].clamp(min=TINY).log() if softmaxed else outputs[name]

    def loss(trained: Outputs, full: Outputs, labels: Tensor | None) -> Tensor:
        z, wanted = scores(trained), scores(full)
        soft, target = (F.log_softmax(x / temperature, -1) for x in (z, wanted))
        total = temperature**2 * F.kl_div(soft, target, reduction="batchmean", log_target=True)
        if task and labels is not None:
            total = total + task * F.cross_entropy(z, labels)
        return total

    return loss


def relative_squared_error(trained: Outputs, full: Outputs, labels: Tensor | None) -> Tensor:
    """Mean over the outputs of the mean squared error over the variance."""
    errors = [F.mse_loss(trained[name], full[name]) / full[name].var().clamp(min=TINY) for name in full]
    return sum(errors[1:], errors[0]) / len(errors)


def checked(loss: Callable[..., Any], name: str) -> Loss:
    """The user's loss, with UsageError, naming it, where it raises or does not return a scalar that can be trained."""

    def called(trained: Outputs, full: Outputs, labels: Tensor | None) -> Tensor:
        try:
            found = loss(trained, full, labels)
        except Exception as error:
            raise UsageError(
                f"the loss {name!r} raised {type(error).__name__}: {error}"
                "; it is called with (outputs, full_precision, labels) and returns a scalar tensor"
            ) from error
        if not isinstance(found, Tensor) or found.ndim != 0:
            shape = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise UsageError(f"the loss {name!r} returned {shape}; it must return a scalar tensor")
        return found

    return called


def is_classifier(network: Network) -> bool:
    """One output, a vector of two features or more."""
    shapes = [network.by_name[name].shape for name in network.outputs]
    return len(shapes) == 1 and len(shapes[0]) == 1 and shapes[0][0] > 1
