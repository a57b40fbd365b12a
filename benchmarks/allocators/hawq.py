"""HAWQ-style: the mean trace of the loss's Hessian of a layer's weights times the squared error of rounding them.

After HAWQ-V2 (arXiv 1911.03852, section 3) and HAWQ-V3 (arXiv 2011.10680, section 3.4, the integer program):
omega(l, b) = trace(H_l) / n_l * ||Q_b(W_l) - W_l||^2, summed over layers, least within the budget. The trace is
Hutchinson's estimate, mean of v' H_l v over random signs v, of the cross entropy to the labels. Q_b is our rounding, on
the weights of the module (batch norm not folded: trace and error are of the same weights).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bitplan.encodings import encoding_of
from bitplan.variant import Variant

from .assignment import MENU
from .knapsack import cheapest
from .subject import Subject, weight_of

PROBES = 16
"""Random sign vectors, each over all layers at once and all images."""
ABOUT = (
    f"HAWQ-V2's mean Hessian trace (Hutchinson, {PROBES} probes, cross entropy to labels) x squared rounding error, "
    "HAWQ-V3's integer program solved to optimality; our implementation, nothing forbidden"
)
PACKAGES: tuple[str, ...] = ()


def assign(subject: Subject, budgets: Sequence[float]) -> Iterator[tuple[float, dict[str, int]]]:
    counts = subject.weight_counts
    traces = positive(hessian_traces(subject).mean(0))
    costs = [
        [trace / counts[name] * squared_error(module, bits) for bits in MENU]
        for trace, (name, module) in zip(traces, subject.layers.items(), strict=True)
    ]
    sizes = [[count * bits for bits in MENU] for count in counts.values()]
    for budget in budgets:
        choices = cheapest(costs, sizes, budget * sum(counts.values()))
        yield budget, {name: MENU[choice] for name, choice in zip(counts, choices, strict=True)}


def positive(traces: NDArray[np.float64]) -> NDArray[np.float64]:
    """The method takes the network for a minimum of its loss. Where the estimate says otherwise, the smallest positive
    trace of all layers stands in its place, so that more bits are still better there."""
    smallest = traces[traces > 0].min(initial=np.inf)
    return np.where(traces > 0, traces, smallest if np.isfinite(smallest) else 1.0)


def hessian_traces(subject: Subject, probes: int = PROBES, seed: int = 0) -> NDArray[np.float64]:
    """Estimates [probes, layers] of the trace of the Hessian of the mean cross entropy with respect to each layer's
    weights."""
    weights = [weight_of(module) for module in subject.layers.values()]
    random = torch.Generator().manual_seed(seed)
    found = np.zeros((probes, len(weights)))
    for probe in range(probes):
        signs = [torch.randint(0, 2, weight.shape, generator=random) * 2.0 - 1 for weight in weights]
        for images, labels in subject.batches:
            found[probe] += _along(subject.module, weights, signs, images, labels) * len(images) / len(subject.images)
    return found


def _along(
    module: nn.Module, weights: list[Tensor], signs: list[Tensor], images: Tensor, labels: Tensor
) -> NDArray[np.float64]:
    """v' H v of every layer's own block: for independent signs, v_l' (H v)_l has that expectation."""
    loss = nn.functional.cross_entropy(module(images), labels)
    slopes = torch.autograd.grad(loss, weights, create_graph=True)
    along = torch.stack([(slope * sign).sum() for slope, sign in zip(slopes, signs, strict=True)]).sum()
    curvatures = torch.autograd.grad(along, weights)
    return np.array([float((c * sign).sum()) for c, sign in zip(curvatures, signs, strict=True)])


def squared_error(module: nn.Module, bits: int) -> float:
    """||Q(W) - W||^2 of a layer's weights rounded to the encoding of so many bits."""
    weight = weight_of(module).detach().numpy()
    weight = weight.reshape(*weight.shape[:2], *(weight.shape[2:] or (1, 1)))
    variant = Variant(f"int{bits}")
    groups = module.groups if isinstance(module, nn.Conv2d) else 1
    layer = encoding_of(variant).quantise(weight, np.zeros(len(weight), np.float32), variant, groups)
    return float(np.square(layer.levels * layer.scale.reshape(-1, 1, 1, 1) - weight).sum(dtype=np.float64))
