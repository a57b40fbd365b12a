"""Random crops and mirror images of raw images."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from bitplan.errors import UsageError
from bitplan.network import Shape

Augment = Callable[[Tensor, torch.Generator], Tensor]

SMALL = 64
"""Images of at most so many pixels a side are augmented by default: crops of large ones are the data set's business."""


def augmentation(kind: str, shape: Shape) -> Augment | None:
    """What `augment` names, for images of this shape (C, H, W); None for nothing. `auto` is `crop+flip` for small images.
    Raises UsageError for anything else on inputs that are no images."""
    image = len(shape) == 3
    if kind == "auto":
        kind = "crop+flip" if image and min(shape[1:]) >= 8 and max(shape[1:]) <= SMALL else "none"
    if kind == "none":
        return None
    if not image:
        raise UsageError(f"augment={kind} is for images [C, H, W], and the network reads {list(shape)}; leave it out")
    parts = kind.split("+")

    def augment(x: Tensor, generator: torch.Generator) -> Tensor:
        x = mirrored(x, generator) if "flip" in parts else x
        return cropped(x, generator) if "crop" in parts else x

    return augment


def mirrored(x: Tensor, generator: torch.Generator) -> Tensor:
    """Each of x [N, C, H, W] with probability 1/2 as its mirror image."""
    chosen = torch.rand(len(x), generator=generator) < 0.5
    return torch.where(chosen.view(-1, 1, 1, 1), x.flip(3), x)


def cropped(x: Tensor, generator: torch.Generator) -> Tensor:
    """Each of x [N, C, H, W] moved by up to an eighth of its size, with zeros (black, where raw) moving in."""
    n, _, height, width = x.shape
    tall, wide = height // 8, width // 8
    padded = F.pad(x, (wide, wide, tall, tall))
    down = torch.randint(0, 2 * tall + 1, (n,), generator=generator).tolist()
    right = torch.randint(0, 2 * wide + 1, (n,), generator=generator).tolist()
    return torch.stack(
        [padded[i, :, a : a + height, b : b + width] for i, (a, b) in enumerate(zip(down, right, strict=True))]
    )
