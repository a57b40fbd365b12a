"""Depthwise layers of every extent: lines that a tile does not hold, borders on all sides, many images and threads."""

from __future__ import annotations

import numpy as np
import pytest

from bitplan.kernels import Runtime
from bitplan.kernels.runtime import isa_levels
from bitplan.network import RELU6, Conv2d, Input, Shape
from bitplan.variant import Variant

from .networks import make_case, network_of, random_inputs

LAYERS: list[tuple[Conv2d, Shape, Shape]] = [
    (Conv2d((3, 3), (1, 1), (1, 1, 1, 1), groups=40, activation=RELU6), (40, 3, 131), (40, 3, 131)),
    (Conv2d((3, 3), (2, 2), (0, 1, 0, 1), groups=96), (96, 5, 140), (96, 2, 70)),
    (Conv2d((5, 5), (2, 2), (2, 2, 2, 2), groups=33), (33, 6, 71), (33, 3, 36)),
    (Conv2d((5, 5), (1, 1), (2, 2, 2, 2), groups=67), (67, 2, 3), (67, 2, 3)),
    (Conv2d((7, 7), (1, 1), (3, 3, 3, 3), groups=32), (32, 19, 19), (32, 19, 19)),
    (Conv2d((3, 3), (1, 1), (4, 4, 4, 4), (4, 4), groups=21), (21, 3, 70), (21, 3, 70)),
    (Conv2d((4, 1), (3, 5), (0, 3, 6, 6), groups=16), (16, 8, 9), (16, 3, 5)),
    (Conv2d((2, 3), (1, 80), (0, 0, 0, 0), groups=5), (5, 2, 250), (5, 1, 4)),
]


@pytest.mark.parametrize("isa", isa_levels())
@pytest.mark.parametrize("encoding", ["int8", "float32"])
def test_depthwise_layers_of_every_extent(encoding: str, isa: str) -> None:
    rng = np.random.default_rng(3)
    for op, shape, out in LAYERS:
        network = network_of([("x", Input(), (), shape), ("op", op, ("x",), out)], ["op"])
        inputs = random_inputs(network, 3, rng)
        case = make_case(network, {"op": Variant.parse(encoding)}, inputs, rng)
        expected = case.reference(inputs)["op"].astype(np.float32)
        slack = 0.0 if encoding == "int8" else 1e-5 * float(np.abs(expected).max())
        for threads in (1, 3):
            found = Runtime.from_bytes(case.artifact, threads, isa)(inputs)["op"]
            np.testing.assert_allclose(found, expected, rtol=0, atol=slack, err_msg=f"{op}, {threads} threads")
