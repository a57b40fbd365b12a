"""One layer under recovery: the layer, its inputs in the full-precision and in the quantised network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from bitplan.encodings import EncodedLayer
from bitplan.formats import Formats, Ranges
from bitplan.network import IDENTITY, Conv2d, Linear, Node
from bitplan.policies.realise.front import Front
from bitplan.simulate import first_range


@dataclass(frozen=True)
class Subject:
    """A layer between two fronts that stand at it: `full`, the full-precision network on the calibration images, and
    `quantised`, the same images behind the layers that were realised already, read through `formats`."""

    node: Node
    full: Front
    quantised: Front
    ranges: Ranges
    formats: Formats

    def outputs(self, layer: EncodedLayer) -> Iterator[tuple[Tensor, Tensor]]:
        """Batch by batch, what the layer makes before residual and activation, as rows by channel [C, M]: in the
        full-precision network, and in the quantised one with `layer` in its place."""
        bare = replace(self.node, op=_bare(self.node.op))
        held = first_range(self.quantised.simulator.network, self.node, self.formats, self.ranges)
        theirs = self.full.inputs(self.node)
        ours = self.quantised.inputs(self.node, self.ranges, self.formats)
        with torch.inference_mode():
            for full, quantised in zip(theirs, ours, strict=True):
                yield (
                    _by_channel(self.full.simulator.node(bare, full[:1]), bare),
                    _by_channel(self.quantised.simulator.node(bare, quantised[:1], layer, held), bare),
                )


Recovery = Callable[[Subject, EncodedLayer], EncodedLayer]
"""A step that makes a quantised layer act more like the full-precision one; float32 layers come back as they are."""


def _bare(op: Any) -> Conv2d | Linear:
    if not isinstance(op, Conv2d | Linear):
        raise TypeError(f"{type(op).__name__} is not a layer with weights")
    return replace(op, activation=IDENTITY)


def _by_channel(y: Tensor, node: Node) -> Tensor:
    """[N, C, H, W] (or [N, ..., C] of a linear layer) as [C, N H W]."""
    y = y.permute(0, 2, 3, 1) if isinstance(node.op, Conv2d) else y
    return y.reshape(-1, y.shape[-1]).T
