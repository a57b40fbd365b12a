"""One layer under recovery: the layer, its inputs in the full-precision and in the quantised network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bitplan.encodings import EncodedLayer
from bitplan.formats import Formats, Ranges
from bitplan.network import IDENTITY, Conv2d, Linear, Node
from bitplan.policies.realise.front import Front
from bitplan.simulate import first_range

Found = TypeVar("Found")


@dataclass(frozen=True)
class Reference:
    """A layer as it was trained, which another encoding of it is to be like: the layer with the network's ranges and formats,
    and its weight before it was rounded, float32 of any shape with the same elements."""

    layer: EncodedLayer
    ranges: Ranges
    formats: Formats
    weight: NDArray[np.float32]


@dataclass(frozen=True)
class Subject:
    """A layer between two fronts that stand at it: `full`, the full-precision network on the calibration images, and
    `quantised`, the same images behind the layers that were realised already, read through `formats`. With a `reference`,
    the trained network that it is of stands in the place of full precision, and `full` is its front."""

    node: Node
    full: Front
    quantised: Front
    ranges: Ranges
    formats: Formats
    reference: Reference | None = None
    _found: dict[Callable[[Subject], Any], Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def once(self, find: Callable[[Subject], Found]) -> Found:
        """`find(self)`, computed once for all who ask: several variants of a layer may share a subject."""
        if find not in self._found:
            self._found[find] = find(self)
        found: Found = self._found[find]
        return found

    def outputs(self, layer: EncodedLayer) -> Iterator[tuple[Tensor, Tensor]]:
        """Batch by batch, what the layer makes before residual and activation, as rows by channel [C, M]: in the
        full-precision network, and in the quantised one with `layer` in its place."""
        bare = replace(self.node, op=_bare(self.node.op))
        held = first_range(self.quantised.simulator.network, self.node, self.formats, self.ranges)
        ours = self.quantised.inputs(self.node, self.ranges, self.formats)
        with torch.inference_mode():
            for full, quantised in zip(self._wanted(bare), ours, strict=True):
                yield full, _by_channel(self.quantised.simulator.node(bare, quantised[:1], layer, held), bare)

    def pairs(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Batch by batch, what the layer reads behind the realised prefix, and what it makes before residual and
        activation in the full-precision network, as rows by channel [C, M]."""
        bare = replace(self.node, op=_bare(self.node.op))
        ours = self.quantised.inputs(self.node, self.ranges, self.formats)
        with torch.inference_mode():
            for full, quantised in zip(self._wanted(bare), ours, strict=True):
                yield quantised[0], full

    def _wanted(self, bare: Node) -> Iterator[Tensor]:
        """Batch by batch, what the layer makes in the network that it is to be like, as rows by channel."""
        known, simulator = self.reference, self.full.simulator
        if known is None:
            for read in self.full.inputs(self.node):
                yield _by_channel(simulator.node(bare, read[:1]), bare)
            return
        held = first_range(simulator.network, self.node, known.formats, known.ranges)
        for read in self.full.inputs(self.node, known.ranges, known.formats):
            yield _by_channel(simulator.node(bare, read[:1], known.layer, held), bare)

    @property
    def weight(self) -> NDArray[np.float32]:
        """The layer's weight that levels are chosen for: in full precision, or as it was trained."""
        if self.reference is not None:
            return self.reference.weight
        return np.asarray(self.full.simulator.arrays(self.node)[0].numpy())

    @property
    def rows(self) -> int:
        """Output pixels of the layer over all images."""
        images = sum(len(values[self.node.inputs[0]]) for values in self.full.batches)
        return images * prod(self.node.shape) // self.full.simulator.network.weight_shape(self.node).out_channels


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
