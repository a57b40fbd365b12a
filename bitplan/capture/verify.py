"""The captured network against the module it came from, on several inputs and batch sizes."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils import _pytree

from bitplan.errors import DataError, UnsupportedError
from bitplan.network import Network, Weights
from bitplan.simulate import Simulator

TOLERANCE = 1e-4
"""max|a - b| <= TOLERANCE max|b|: what float32 summation in another order may cost."""


def verify(network: Network, weights: Weights, module: nn.Module, examples: tuple[Tensor, ...]) -> None:
    """Compares on the example, on a random batch of another size and on a single image.
    Raises UnsupportedError where an output differs, DataError where the module's own output is not finite."""
    simulator = Simulator(network, weights)
    batch = len(examples[0])
    generator = torch.Generator().manual_seed(0)
    noise = tuple(
        x.mean() + (float(x.std()) or 1.0) * torch.randn((batch + 1, *x.shape[1:]), generator=generator)
        for x in examples
    )
    for inputs, what in (
        (examples, "the example"),
        (noise, "a random batch"),
        (tuple(x[:1] for x in noise), "one image"),
    ):
        try:
            expected = [y for y in _pytree.tree_leaves(module(*(x.clone() for x in inputs))) if y is not None]
        except Exception as error:
            if what == "one image":
                continue  # the module's own weakness (a bare squeeze, say): the network has no such batch size
            raise UnsupportedError(
                f"the module fails on {what} of shape {tuple(inputs[0].shape)} ({str(error).strip()[:200]}); it must work "
                "for any batch size: write x.flatten(1) or x.view(x.size(0), -1) instead of fixed numbers"
            ) from error
        found = simulator.outputs(dict(zip((node.name for node in network.inputs), inputs, strict=True)))
        for (name, a), b in zip(found.items(), expected, strict=True):
            _compare(name, a, b, what)


def _compare(name: str, a: Tensor, b: Tensor, what: str) -> None:
    if not torch.isfinite(b).all():
        raise DataError(f"the module's output {name!r} is not finite on {what}; look at its weights")
    if len(a) == 1 and a.numel() == b.numel():
        b = b.reshape(a.shape)  # a bare squeeze in the module drops the batch of one image
    if a.shape != b.shape:
        raise UnsupportedError(
            f"output {name!r} has shape {tuple(a.shape)} where the module yields {tuple(b.shape)} on {what}: its shape "
            "depends on the batch size; keep the batch as the first axis"
        )
    difference, scale = float((a - b).abs().max()), float(b.abs().max())
    if not difference <= TOLERANCE * scale:
        raise UnsupportedError(
            f"output {name!r} differs from the module's by {difference:.3g} (largest value {scale:.3g}) on {what}: the "
            "module computes something that tracing could not see, such as random numbers, state kept between calls or "
            "a choice made from the data or the batch size; take it out of forward"
        )
