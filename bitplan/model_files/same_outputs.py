"""The network that was made against the one in the file."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from bitplan.errors import UnsupportedError
from bitplan.network import Shape

TOLERANCE = 1e-4
"""max|a - b| <= TOLERANCE max|b|: what float32 summation in another order may cost."""
Outputs = Callable[[Tensor], Sequence[Tensor]]


def same_as_slices(module: nn.Module, source: nn.Module, batch: int, shape: Shape, name: str) -> None:
    """Compares a module that takes any batch with one that takes `batch` images: on three times as many random ones.
    Raises UnsupportedError where they differ."""
    compare(lambda x: tensors(module(x)), lambda x: tensors(source(x)), batch, shape, name)


@torch.no_grad()
def compare(found: Outputs, expected: Outputs, batch: int, shape: Shape, name: str, rounds: int = 3) -> None:
    """The outputs of `found` for rounds x batch random images against those of `expected` for `batch` at a time.
    Raises UnsupportedError where they differ."""
    x = torch.randn((rounds * batch, *shape), generator=torch.Generator().manual_seed(0))
    parts = [expected(part.clone()) for part in torch.split(x, batch)]
    try:
        outputs = found(x.clone())
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0]
        raise UnsupportedError(
            f"{name}: the imported network fails on {len(x)} images, taken {batch} at a time by the file ({reason}); "
            + (
                "export it with a dynamic batch"
                if rounds > 1
                else "write what this is about in another way, and export it again"
            )
        ) from error
    for index, (a, *bs) in enumerate(zip(outputs, *parts, strict=True)):
        b = torch.cat([part.reshape(batch, *part.shape[1:]) for part in bs]) if bs[0].ndim else bs[0]
        scale = float(b.abs().max())
        difference = float((a - b).abs().max()) if a.shape == b.shape else float("inf")
        if not difference <= TOLERANCE * scale:
            what = (
                f"differs by {difference:.3g} (largest value {scale:.3g})"
                if a.shape == b.shape
                else "has another shape"
            )
            raise UnsupportedError(
                f"{name}: output {index} of the imported network {what} on {len(x)} random images, taken {batch} at a time; "
                "export it with a dynamic batch, in evaluation mode and without random numbers"
            )


def tensors(output: object) -> list[Tensor]:
    """The tensors that a module returned."""
    if isinstance(output, Tensor):
        return [output]
    assert isinstance(output, list | tuple)
    return [value for value in output if isinstance(value, Tensor)]
