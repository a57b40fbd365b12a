"""What is read from an artifact packs to the same bytes; damage is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bitplan.encodings import encoding_of, every_variant
from bitplan.errors import FileFormatError
from bitplan.kernels.artifact import pack_artifact
from bitplan.kernels.read_artifact import Contents, read_artifact
from bitplan.network import Conv2d, Input, Linear, Mean, Preprocessing, ScaleShift
from bitplan.variant import Variant

from .cases import INT8, OPERATIONS, single
from .networks import make_case, network_of, random_inputs, residual_network

FORMS = [*every_variant(), *(replace(INT8, activation=form) for form in encoding_of(INT8).activations[1:])]


def packed_again(found: Contents) -> bytes:
    return pack_artifact(
        found.network,
        found.weights,
        found.layers,
        found.ranges,
        policy_hash=found.policy_hash,
        planned_batch=found.planned_batch,
    )


@pytest.mark.parametrize("variant", FORMS, ids=str)
def test_every_variant_packs_to_the_same_bytes(variant: Variant) -> None:
    rng = np.random.default_rng(0)
    network = network_of(
        [
            ("x", Input(), (), (6, 5, 4)),
            ("conv", Conv2d((3, 3), padding=(1, 1, 1, 1)), ("x",), (9, 5, 4)),
            ("mean", Mean(), ("conv",), (9,)),
            ("logits", Linear(), ("mean",), (31,)),
        ],
        ["logits"],
        Preprocessing((1.0,) * 6, (2.0,) * 6),
    )
    variants = {node.name: variant for node in network.layers}
    case = make_case(network, variants, random_inputs(network, 2, rng, np.uint8), rng)
    found = read_artifact(case.artifact)
    assert found.network == network
    for name, layer in case.layers.items():
        np.testing.assert_array_equal(found.layers[name].weight, layer.weight)
    assert packed_again(found) == case.artifact


def test_every_operation_is_read() -> None:
    rng = np.random.default_rng(0)
    for op, shapes, shape in OPERATIONS:
        network = single(op, shapes, shape, probe=True)
        variants = {node.name: INT8 for node in network.layers}
        case = make_case(network, variants, random_inputs(network, 2, rng), rng)
        found = read_artifact(case.artifact)
        assert found.network == network
        assert bool(found.weights) == isinstance(op, ScaleShift)
        assert packed_again(found) == case.artifact


def test_damage_is_refused() -> None:
    rng = np.random.default_rng(0)
    network = residual_network()
    variants = {node.name: INT8 for node in network.layers}
    good = make_case(network, variants, random_inputs(network, 2, rng, np.uint8), rng).artifact
    flipped = bytearray(good)
    flipped[-5] ^= 1
    for damaged, text in (
        (b"hello", "not a bitplan artifact"),
        (good[:-8], "size or checksum"),
        (bytes(flipped), "size or checksum"),
        (good[:8] + b"\2" + good[9:], "version 2"),
    ):
        with pytest.raises(FileFormatError, match=text):
            read_artifact(damaged)
