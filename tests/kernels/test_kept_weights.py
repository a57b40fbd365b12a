"""Layers of apb of every extent: several tiles of rows, and more weights than are decoded at once."""

from __future__ import annotations

import numpy as np
import pytest

from bitplan.kernels import Runtime
from bitplan.kernels.runtime import isa_levels
from bitplan.network import RELU, Conv2d, Input, Linear, Op, Shape
from bitplan.variant import Variant

from .networks import make_case, network_of, random_inputs

LAYERS: list[tuple[Op, Shape, Shape]] = [
    (Conv2d((3, 3), (1, 1), (1, 1, 1, 1), activation=RELU), (512, 7, 10), (272, 7, 10)),
    (Conv2d((3, 3), (1, 1), (1, 1, 1, 1), groups=2), (80, 9, 11), (176, 9, 11)),
    (Conv2d((3, 3), (2, 2), (1, 1, 1, 1)), (13, 19, 18), (70, 10, 9)),
    (Conv2d((1, 1)), (50, 9, 9), (33, 9, 9)),
    (Linear(), (1030,), (75,)),
]


@pytest.mark.parametrize("isa", isa_levels())
@pytest.mark.parametrize("fraction", ["0.02", "0.5"])
def test_kept_weights_in_layers_of_every_extent(fraction: str, isa: str) -> None:
    rng = np.random.default_rng(3)
    for op, shape, out in LAYERS:
        network = network_of([("x", Input(), (), shape), ("op", op, ("x",), out)], ["op"])
        inputs = random_inputs(network, 2, rng)
        case = make_case(network, {"op": Variant.parse(f"apb:kept={fraction}")}, inputs, rng)
        expected = case.reference(inputs)["op"].astype(np.float32)
        for threads in (1, 3):
            found = Runtime.from_bytes(case.artifact, threads, isa)(inputs)["op"]
            np.testing.assert_array_equal(found, expected, err_msg=f"{op}, {threads} threads")
