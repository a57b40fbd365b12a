"""The order of a layer's codes in the artifact: the order in which the kernels' panels want them.

    depthwise          [kernel height][kernel width][channel]
    everything else    [group][block of 16 output channels][step of 4 along K][output channel][4 along K]

with K = (kernel height, kernel width, input channel), input channel fastest. The last block of a group and the
last step of K are narrower where 16 or 4 do not divide; nothing is padded.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from bitplan.network import WeightShape

BLOCK = 16
STEP = 4


@lru_cache(maxsize=256)
def stream_order(shape: WeightShape) -> NDArray[np.int64]:
    """Indices into the C-order weight [out, in / groups, height, width], in the order of the stream."""
    height, width = shape.kernel
    inputs = shape.in_channels // shape.groups
    index = np.arange(shape.count).reshape(shape.out_channels, inputs, height, width)
    if shape.depthwise:
        return index.transpose(2, 3, 0, 1).ravel()
    rows = index.transpose(0, 2, 3, 1).reshape(shape.groups, shape.out_channels // shape.groups, shape.reduction)
    parts = []
    for group in rows:
        for start in range(0, len(group), BLOCK):
            block = group[start : start + BLOCK]
            whole = shape.reduction // STEP * STEP
            steps = block[:, :whole].reshape(len(block), -1, STEP)
            parts += [steps.transpose(1, 0, 2).ravel(), block[:, whole:].ravel()]
    order = np.concatenate(parts)
    order.setflags(write=False)
    return order
