"""The true loss equals realising the whole policy, whatever was evaluated before."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from bitplan.compute import supports_format
from bitplan.policies.realise import realise
from bitplan.policies.realise.steps import recoveries
from bitplan.profiles.metrics import increase
from bitplan.simulate import Simulator
from bitplan.true_loss import TrueLoss
from bitplan.variant import Variant

MENU = tuple(Variant.parse(text) for text in ("float32", "int8", "int4", "int4@u4", "binary"))


def menu_of(network: Any) -> dict[str, tuple[Variant, ...]]:
    return {
        node.name: tuple(v for v in MENU if supports_format(network.weight_shape(node), v.activation))
        for node in network.layers
    }


@pytest.mark.parametrize("recovery", [("correct",), ("correct", "reconstruct")], ids=" ".join)
def test_it_equals_the_realised_network_and_the_cache_changes_nothing(small: Any, recovery: tuple[str, ...]) -> None:
    network, images = small.network, (small.images[:24], small.images[24:])
    menu = menu_of(network)
    random = np.random.default_rng(0)
    base = {layer: variants[int(random.integers(len(variants)))] for layer, variants in menu.items()}
    cached = TrueLoss(network, small.weights, images, menu, batch=8, recovery=recovery)
    for _ in range(12):
        variants = dict(base)
        for layer in random.choice(list(menu), int(random.integers(3)), replace=False):
            variants[str(layer)] = menu[str(layer)][int(random.integers(len(menu[str(layer)])))]
        found = cached(variants)
        fresh = TrueLoss(network, small.weights, images, menu, batch=8, recovery=recovery)(variants)
        for mine, theirs in zip(found, fresh, strict=True):
            np.testing.assert_array_equal(mine, theirs)
        carried = realise(network, small.weights, images[0], variants, batch=8, recoveries=recoveries(recovery))
        simulator = Simulator(network, small.weights)
        for mine, part in zip(found, images, strict=True):
            full = {name: value.numpy() for name, value in simulator.outputs(part).items()}
            outputs = simulator.outputs(part, carried.layers, carried.ranges)
            expected = increase(network, "kl", full)({n: v.numpy() for n, v in outputs.items()}, slice(None))
            np.testing.assert_allclose(mine, expected, rtol=1e-4, atol=1e-6)
    assert cached.walked < 12 * len(menu)  # some fronts were taken over


def test_little_memory_keeps_fewer_fronts_and_gives_the_same(small: Any) -> None:
    network, images = small.network, (small.images[:16], small.images[16:])
    menu = menu_of(network)
    policy = {layer: variants[1] for layer, variants in menu.items()}
    other = policy | {"classifier": Variant("binary")}
    roomy, tight = (TrueLoss(network, small.weights, images, menu, memory=memory) for memory in (1 << 30, 1))
    for variants in (policy, other):
        for mine, theirs in zip(roomy(variants), tight(variants), strict=True):
            np.testing.assert_array_equal(mine, theirs)
    assert roomy.walked < tight.walked
