"""Second moments of what a layer reads and should make: all that reconstruction needs to know of the images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from bitplan.formats import Range
from bitplan.network import Conv2d, Node
from bitplan.policies.realise.subject import Subject
from bitplan.simulate import first_range

Doubles = NDArray[np.float64]

ROWS = 1 << 15
"""Rows of patches at most that the moments of a layer are taken over, drawn at random from all pixels of all images."""


@dataclass(frozen=True)
class InputMoments:
    """Covariances of the rows x that a layer reads behind the realised prefix (the bias takes care of the means).

    covariance: [groups, K, K] of x; cross: [groups, rows, K] of the full-precision outputs before the residual, as read
    behind the full-precision prefix, with x; power: [groups, rows], their variance;
    count: rows of x.
    """

    covariance: Doubles
    cross: Doubles
    power: Doubles
    count: int

    @classmethod
    def of(cls, subject: Subject) -> InputMoments:
        """Over a sample of at most ROWS patches."""
        network = subject.quantised.simulator.network
        shape = network.weight_shape(subject.node)
        groups = shape.groups
        held = first_range(network, subject.node, subject.formats, subject.ranges)
        total = np.zeros((groups, shape.reduction, shape.reduction))
        cross = np.zeros((groups, shape.out_channels // groups, shape.reduction))
        mean_x = np.zeros((groups, shape.reduction))
        mean_y, power = np.zeros((2, *cross.shape[:2]))
        origin_x, origin_y = None, None
        count = 0
        random = torch.Generator().manual_seed(0)
        share = min(1.0, ROWS / max(1, subject.rows))
        for x, y in subject.pairs():
            patches = rows_of(subject.node, x, held)
            outputs = y.reshape(groups, -1, y.shape[-1])
            if share < 1:
                chosen = torch.nonzero(torch.rand(patches.shape[1], generator=random) < share)[:, 0]
                patches, outputs = patches[:, chosen], outputs[:, :, chosen]
            if origin_x is None or origin_y is None:
                # Products of float32 numbers far from zero would drown a small variance in their rounding errors.
                origin_x, origin_y = patches.mean(1, keepdim=True), outputs.mean(2, keepdim=True)
            patches, outputs = patches - origin_x, outputs - origin_y
            count += patches.shape[1]
            total += (patches.mT @ patches).double().numpy()
            cross += (outputs @ patches).double().numpy()
            mean_x += patches.sum(1).double().numpy()
            mean_y += outputs.sum(2).double().numpy()
            power += (outputs * outputs).sum(2).double().numpy()
        count = max(count, 1)
        mean_x, mean_y = mean_x / count, mean_y / count
        return cls(
            total / count - mean_x[:, :, None] * mean_x[:, None, :],
            cross / count - mean_y[:, :, None] * mean_x[:, None, :],
            power / count - mean_y**2,
            count,
        )

    def error(self, rows: Doubles) -> Doubles:
        """The variance [groups, rows] of the outputs' error with weight rows [groups, rows, K]."""
        return np.asarray(self.power + (rows * (rows @ self.covariance - 2 * self.cross)).sum(2))


def rows_of(node: Node, x: Tensor, held: Range | None) -> Tensor:
    """What each output pixel of a layer reads, [groups, pixels, K] with K in the order of the weight's rows."""
    op = node.op
    if not isinstance(op, Conv2d):
        return x.reshape(1, -1, x.shape[-1])
    channels = x.shape[1]
    if op.kernel == (1, 1) and not any(op.padding):
        x = x[:, :, :: op.stride[0], :: op.stride[1]]
        return x.reshape(len(x), op.groups, channels // op.groups, -1).permute(1, 0, 3, 2).flatten(1, 2)
    top, bottom, left, right = op.padding
    padded = F.pad(x, (left, right, top, bottom), value=held.padding_value if held else 0.0)
    columns = F.unfold(padded, op.kernel, op.dilation, 0, op.stride)
    return columns.reshape(len(x), op.groups, -1, columns.shape[-1]).permute(1, 0, 3, 2).flatten(1, 2)
