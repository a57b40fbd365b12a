"""Whole networks of mixed variants and kernels: against the reference, and the same at every level and thread count."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from bitplan.compute import kernels_for, supports_format
from bitplan.encodings import every_variant
from bitplan.kernels import Runtime
from bitplan.kernels.runtime import isa_levels
from bitplan.network import (
    Network,
)
from bitplan.variant import FLOAT32, Variant

from .cases import outputs_of
from .networks import make_case, random_inputs, residual_network

MIXED = tuple(
    map(Variant.parse, ("float32", "int8", "int3", "apb:kept=0.04", "binary@u2", "ternary@u1", "apb@u4:kept=0.04"))
)


def mixed(
    network: Network, rng: np.random.Generator, offered: Sequence[Variant] = MIXED
) -> tuple[dict[str, Variant], dict[str, str]]:
    """A variant and a kernel for every layer, drawn at random."""
    variants, kernels = {}, {}
    for node in network.layers:
        fitting = [v for v in offered if supports_format(network.weight_shape(node), v.activation)]
        variants[node.name] = fitting[rng.integers(len(fitting))]
        names = kernels_for(variants[node.name])
        kernels[node.name] = names[rng.integers(len(names))]
    return variants, kernels


@pytest.mark.parametrize("isa", isa_levels())
@pytest.mark.parametrize("seed", range(12))
def test_whole_networks_of_mixed_variants(seed: int, isa: str) -> None:
    rng = np.random.default_rng(seed)
    network = residual_network()
    inputs = random_inputs(network, 3, rng, np.uint8)
    variants, _ = mixed(network, rng, every_variant())
    case = make_case(network, variants, inputs, rng)
    expected, found = case.reference(inputs)["logits"], outputs_of(case, inputs, isa)["logits"]
    # A code that went the other way early on moves every logit a little.
    assert np.abs(found - expected).max() <= 0.02 * np.abs(expected).max()
    assert np.abs(found - expected).mean() <= 0.003 * np.abs(expected).max()


@pytest.mark.parametrize("isa", isa_levels())
@pytest.mark.parametrize("seed", range(12))
def test_whole_networks_of_mixed_formats_and_kernels(seed: int, isa: str) -> None:
    """Codes alone, so that nothing but the mean is rounded otherwise than in the reference."""
    rng = np.random.default_rng(100 + seed)
    network = residual_network()
    inputs = random_inputs(network, 3, rng, np.uint8)
    variants, kernels = mixed(network, rng, [v for v in MIXED if v != FLOAT32])
    case = make_case(network, variants, inputs, rng, kernels=kernels)
    expected, found = case.reference(inputs)["logits"], outputs_of(case, inputs, isa)["logits"]
    assert np.abs(found - expected).max() <= 1e-3 * np.abs(expected).max()


@pytest.mark.parametrize("isa", isa_levels())
def test_results_do_not_depend_on_threads_or_batch(isa: str) -> None:
    rng = np.random.default_rng(21)
    network = residual_network()
    for _ in range(8):
        inputs = random_inputs(network, 4, rng, np.uint8)
        variants, kernels = mixed(network, rng)
        case = make_case(network, variants, inputs, rng, kernels=kernels)
        expected = outputs_of(case, inputs, isa)["logits"]
        for threads in (2, 3, 5):
            np.testing.assert_array_equal(outputs_of(case, inputs, isa, threads)["logits"], expected)
        runtime = Runtime.from_bytes(case.artifact, isa=isa)
        for image in range(4):
            np.testing.assert_array_equal(runtime(inputs["x"][image : image + 1]), expected[image : image + 1])


def test_networks_of_codes_give_the_same_bits_at_every_level() -> None:
    rng = np.random.default_rng(22)
    network = residual_network()
    for _ in range(8):
        inputs = random_inputs(network, 2, rng, np.uint8)
        variants, kernels = mixed(network, rng, [v for v in MIXED if v != FLOAT32])
        case = make_case(network, variants, inputs, rng, kernels=kernels)
        first, *others = (outputs_of(case, inputs, isa)["logits"] for isa in isa_levels())
        for other in others:
            np.testing.assert_array_equal(other, first)


def test_forced_level_is_the_one_that_runs() -> None:
    rng = np.random.default_rng(1)
    network = residual_network()
    variants, kernels = mixed(network, rng)
    case = make_case(network, variants, random_inputs(network, 1, rng, np.uint8), rng, kernels=kernels)
    for isa in isa_levels():
        assert Runtime.from_bytes(case.artifact, isa=isa).isa == isa
