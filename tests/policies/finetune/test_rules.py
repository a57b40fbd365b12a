"""Every training rule: it starts from the layer it was given, learns, and ends as that encoding."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch")

from bitplan.encodings import ENCODINGS, EncodedLayer, encoding_of, every_variant
from bitplan.encodings.coded import Coded
from bitplan.encodings.even import EvenLevels
from bitplan.policies.realise.finetune.rules import RULES, Rule, UnderRate, rule_for
from bitplan.policies.realise.finetune.rules.ternary_at_rate import MeanThresholdAtRate, PrunedAtRate
from bitplan.policies.realise.finetune.settings import Settings
from bitplan.variant import F32, Variant

CODED = [variant for variant in every_variant() if variant.activation != F32]
ONES, ZEROS = np.ones(6, np.float32), np.zeros(6, np.float32)


def weights(seed: int = 0) -> NDArray[np.float32]:
    random = np.random.default_rng(seed)
    channels = np.geomspace(0.02, 3, 6).reshape(-1, 1, 1, 1)
    return (random.laplace(0, 1, (6, 8, 3, 3)) * channels).astype(np.float32)


def quantised(variant: Variant) -> EncodedLayer:
    return encoding_of(variant).quantise(weights(), ZEROS, variant)


def trained(rule: Rule, steps: int = 30, rate: float = 0.05) -> Rule:
    """A few steps towards a smaller, shifted weight."""
    target = torch.from_numpy(0.7 * weights() + 0.1 * weights(1))
    optimiser = torch.optim.Adam([p for p in rule.parameters() if p.requires_grad], rate)
    for step in range(steps):
        rule.advance(step / steps)
        optimiser.zero_grad()
        ((rule() - target) ** 2).sum().backward()
        optimiser.step()
        rule.constrain()
    rule.advance(1.0)
    return rule


def test_every_encoding_has_a_rule() -> None:
    even = {encoding.name for encoding in ENCODINGS if isinstance(encoding, EvenLevels)}
    assert {encoding.name for encoding in ENCODINGS} == {*RULES, *even}


@pytest.mark.parametrize("variant", CODED, ids=str)
class TestRules:
    def test_the_start_is_the_layer_that_was_given(self, variant: Variant) -> None:
        layer = quantised(variant)
        gain = np.linspace(0.8, 1.3, 6).astype(np.float32)
        corrected = layer.corrected(gain, ONES)
        found = rule_for(weights(), layer, corrected, Settings()).encoded(ONES, ONES)
        assert np.allclose(found.weight, corrected.weight, rtol=0.03, atol=1e-3 * np.abs(corrected.weight).max())
        assert (found.levels != corrected.levels).mean() < 0.01

    def test_levels_that_recovery_chose_are_kept(self, variant: Variant) -> None:
        layer = quantised(variant)
        if variant.encoding in ("apb", "apb4", "int8"):
            pytest.skip("its start is that of the other test")
        moved = layer.levels.copy()
        moved[:, 0, 0, 0] = moved[:, 1, 1, 1]
        encoding = encoding_of(variant)
        if isinstance(encoding, Coded):
            moved = encoding.shrink(moved, variant)
        start = replace(layer, levels=moved)
        assert np.array_equal(rule_for(weights(), layer, start, Settings()).encoded(ONES, ZEROS).levels, moved)

    def test_what_was_trained_packs_and_unpacks(self, variant: Variant) -> None:
        layer = quantised(variant)
        rule = trained(rule_for(weights(), layer, layer, Settings()))
        found, encoding = rule.encoded(ONES, ONES), encoding_of(variant)
        data = encoding.pack(found)
        assert len(data) == encoding.size_bytes(found.shape, variant)
        again = encoding.unpack(data, found.shape, variant)
        assert np.array_equal(again.weight, found.weight)
        assert np.array_equal(again.bias, found.bias)
        with torch.no_grad():
            inside, levels = rule().numpy(), rule.ratio().numpy()
        if isinstance(encoding, Coded):  # what does not fit into the bytes yet is moved towards zero
            assert np.all(np.abs(found.levels) <= np.abs(levels))
            assert np.all(found.levels * levels >= 0)
            return
        assert np.allclose(found.weight, inside, atol=0.02 * np.abs(inside).max())

    def test_training_lowers_the_error(self, variant: Variant) -> None:
        layer = quantised(variant)
        rule = rule_for(weights(), layer, layer, Settings())
        target = 0.7 * weights() + 0.1 * weights(1)
        before = ((rule.encoded(ONES, ZEROS).weight - target) ** 2).sum()
        after = ((trained(rule, 60, 0.01).encoded(ONES, ZEROS).weight - target) ** 2).sum()
        assert after < 0.95 * before  # most of the error is what the encoding cannot hold


@pytest.mark.parametrize("kept", ["start", "count", "learned"])
@pytest.mark.parametrize("gradient", ["exact", "published", "frozen"])
def test_apb_keeps_exactly_as_many_as_the_policy_says(kept: str, gradient: str) -> None:
    variant = Variant("apb", parameters=(("kept", 0.03),))
    layer = quantised(variant)
    rule = trained(rule_for(weights(), layer, layer, Settings(apb_kept=kept, apb_alpha=gradient)))
    found = rule.encoded(ONES, ZEROS)
    assert len(found.kept_positions) == round(0.03 * 432) == int((~rule.near()).sum())
    rest = np.delete(np.abs(found.levels.reshape(-1)), found.kept_positions)
    assert len(set(rest.tolist())) == 1


def test_apb_begins_with_the_weights_that_recovery_kept_and_holds_on_to_them() -> None:
    variant = Variant("apb", parameters=(("kept", 0.03),))
    layer = quantised(variant)
    positions = np.arange(5, 5 + 30 * len(layer.kept_positions), 30)  # not those farthest from the magnitude
    levels = np.where(layer.levels < 0, -20, 20).astype(np.int8)
    levels.reshape(-1)[positions] = np.linspace(-60, 60, len(positions)).astype(np.int8)
    start = replace(layer, levels=levels, kept_positions=positions)
    rule = rule_for(weights(), layer, start, Settings(apb_kept="start"))
    with torch.no_grad():
        assert np.allclose(rule().numpy(), start.weight, rtol=1e-5)
    assert np.array_equal(trained(rule).encoded(ONES, ZEROS).kept_positions, positions)


def test_a_kept_weight_beyond_the_last_level_is_not_drawn_further() -> None:
    variant = Variant("apb4", parameters=(("kept", 0.03),))
    layer = quantised(variant)
    rule = rule_for(weights(), layer, layer, Settings(apb_kept="start"))
    first, second = layer.kept_positions[:2]
    with torch.no_grad():
        rule.latent.view(-1)[first] = 8 / rule.magnitude  # its levels reach to 7
        rule.latent.view(-1)[second] = 7.2 / rule.magnitude
    rule().sum().backward()
    assert rule.latent.grad is not None
    assert (rule.latent.grad.reshape(-1) == 0).sum() == 1
    assert rule.latent.grad.reshape(-1)[first] == 0


def test_a_smaller_delta_than_alpha_is_no_trap() -> None:
    variant = Variant("apb", parameters=(("kept", 0.03),))
    layer = quantised(variant)
    rule = rule_for(weights(), layer, layer, Settings(apb_kept="learned"))
    with torch.no_grad():
        rule.delta.fill_(0.1)
    assert int((~rule.near()).sum()) > 100
    rule.advance(0.5)
    rule.advance(1.0)
    assert int((~rule.near()).sum()) == round(0.03 * 432)


def test_pruning_begins_with_the_levels_that_recovery_chose() -> None:
    layer = quantised(Variant("ternary"))
    moved = layer.levels.copy()
    moved[:, 0, 0, 0] = moved[:, 1, 1, 1]
    rule = rule_for(weights(), layer, replace(layer, levels=moved), Settings(ternary="ptq", zeros=0.8))
    rule.advance(0.0)
    assert np.array_equal(rule.encoded(ONES, ZEROS).levels, moved)


def train_on_noise(rule: Rule, weight: NDArray[np.float32]) -> None:
    """Towards a weight that is seen through noise, so that levels change."""
    target = torch.from_numpy(weight)
    optimiser = torch.optim.Adam([rule.latent, rule.rho], 0.002)
    generator = torch.Generator().manual_seed(0)
    for step in range(200):
        rule.advance(step / 200)
        optimiser.zero_grad()
        ((rule() - target - 3 * torch.randn(target.shape, generator=generator)) ** 2).sum().backward()
        optimiser.step()
        rule.constrain()


@pytest.mark.parametrize("kind", ["twn", "ptq"])
def test_the_papers_rules_hold_a_coded_layer_to_its_bytes(kind: str) -> None:
    random = np.random.default_rng(0)
    weight = random.laplace(0, 1, (32, 32, 3, 3)).astype(np.float32)
    variant = Variant.parse("codedternary:bits=0.8")
    layer = encoding_of(variant).quantise(weight, np.zeros(32, np.float32), variant)
    rule = rule_for(weight, layer, layer, Settings(ternary=kind))
    assert isinstance(rule, PrunedAtRate | MeanThresholdAtRate)
    train_on_noise(rule, weight)
    seen = rule.ratio().detach().numpy()
    found = rule.encoded(np.ones(32, np.float32), np.zeros(32, np.float32))
    assert len(encoding_of(variant).pack(found)) == encoding_of(variant).size_bytes(layer.shape, variant)
    assert (seen != layer.levels).mean() > 0.003
    assert (found.levels != seen).mean() < 0.03
    assert np.count_nonzero(found.levels) > 0.95 * np.count_nonzero(layer.levels)


@pytest.mark.parametrize("kind", ["learned", "twn", "ptq"])
def test_ternary_rules(kind: str) -> None:
    layer = quantised(Variant("ternary"))
    rule = trained(rule_for(weights(), layer, layer, Settings(ternary=kind, zeros=0.8, weight_decay=1e-4)))
    levels = rule.encoded(ONES, ZEROS).levels
    assert set(np.unique(levels)) == {-1, 0, 1}
    if kind == "ptq":
        assert (levels == 0).mean() == pytest.approx(0.8, abs=0.01)
        norms = rule.latent.detach().flatten(1).norm(dim=1)
        assert torch.allclose(norms, rule.norm.reshape(-1), rtol=1e-5)
    if kind == "twn":
        magnitude = rule.latent.detach().abs()
        assert np.array_equal(levels != 0, (magnitude > 0.7 * magnitude.mean((1, 2, 3), keepdim=True)).numpy())


@pytest.mark.parametrize("name", ["ternary", "codedternary:bits=1"])
@pytest.mark.parametrize("kind", ["learned", "twn", "ptq"])
def test_decay_is_once_inside_the_estimator_of_ptq_and_outside_elsewhere(name: str, kind: str) -> None:
    layer = quantised(Variant.parse(name))
    decay = 1e-2
    rule, free = (
        rule_for(weights(), layer, layer, Settings(ternary=kind, weight_decay=value)) for value in (decay, 0.0)
    )
    for each in (rule, free):
        each().square().sum().backward()
    inside = not torch.equal(rule.latent.grad, free.latent.grad)
    outside = any(parameter is rule.latent for parameter in rule.weights())
    assert inside == (kind == "ptq")
    assert outside == (kind != "ptq")


def test_the_scale_of_binary_can_be_the_mean_magnitude() -> None:
    layer = quantised(Variant("binary"))
    rule = rule_for(weights(), layer, layer, Settings(binary="mean"))
    rule().sum().backward()
    first = rule.scale().detach().clone()
    with torch.no_grad():
        rule.latent.mul_(0.5)
    assert torch.allclose(rule.scale(), 0.5 * first)
    assert float(rule.latent.grad.abs().min()) > 0  # by the scale, and by the signs


@pytest.mark.parametrize("text", ["coded:bits=1", "coded:bits=2", "codedternary:bits=0.65"])
def test_training_sees_what_the_file_of_a_coded_layer_will_hold(text: str) -> None:
    random = np.random.default_rng(0)
    weight = random.laplace(0, 1, (32, 32, 3, 3)).astype(np.float32)
    layer = encoding_of(Variant.parse(text)).quantise(weight, np.zeros(32, np.float32), Variant.parse(text))
    rule = rule_for(weight, layer, layer, Settings())
    assert isinstance(rule, UnderRate)
    train_on_noise(rule, weight)
    seen = rule.ratio().detach().numpy()
    found = rule.encoded(np.ones(32, np.float32), np.zeros(32, np.float32)).levels
    assert (seen != layer.levels).mean() > 0.003  # noise alone makes levels change, and more of them nonzero
    assert (found != seen).mean() < 0.01
    assert np.count_nonzero(found) > 0.97 * np.count_nonzero(layer.levels)


def coded_rule(text: str, weight: NDArray[np.float32]) -> UnderRate:
    variant = Variant.parse(text)
    layer = encoding_of(variant).quantise(weight, np.zeros(len(weight), np.float32), variant)
    rule = rule_for(weight, layer, layer, Settings())
    assert isinstance(rule, UnderRate)
    return rule


def size_of(rule: UnderRate) -> float:
    levels = rule.levels(rule.position()).numpy().astype(np.int8)
    return rule.encoding.counted(levels, rule.start.variant)[2]


def test_a_coded_layer_of_mostly_zeros_is_not_made_to_fill_its_bytes() -> None:
    random = np.random.default_rng(0)
    weight = random.normal(size=(16, 16, 3, 3)).astype(np.float32)
    weight[random.random(weight.shape) < 0.95] = 0
    rule = coded_rule("codedternary:bits=1", weight)
    size = size_of(rule)
    assert size < 0.5 * rule.room.allowed
    for noise in (0.0, 0.05):
        with torch.no_grad():
            rule.latent.add_(noise * torch.randn(rule.latent.shape, generator=torch.Generator().manual_seed(0)))
        for _ in range(100):
            rule.constrain()
        assert torch.isfinite(rule.latent).all()
        assert size_of(rule) < 1.1 * size


@pytest.mark.parametrize("factor", [2.5, 0.8])
def test_a_coded_layer_comes_back_to_its_bytes(factor: float) -> None:
    rule = coded_rule(
        "codedternary:bits=0.65", np.random.default_rng(0).laplace(size=(16, 16, 3, 3)).astype(np.float32)
    )
    with torch.no_grad():
        rule.latent.mul_(factor)
    assert abs(size_of(rule) / rule.room.allowed - 1) > 0.2
    for _ in range(200):
        rule.constrain()
    assert 0.97 * rule.room.wanted < size_of(rule) < 1.01 * rule.room.allowed
