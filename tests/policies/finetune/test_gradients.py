"""The straight-through gradients against the formulas that they are documented with."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from bitplan.encodings import encoding_of
from bitplan.formats import Range, top_code
from bitplan.policies.realise.finetune.gradients import (
    binarise_near,
    decayed,
    round_to_codes,
    straight_through,
)
from bitplan.policies.realise.finetune.rules.grid import Grid
from bitplan.simulate import fake_quantise
from bitplan.variant import Variant


def values(count: int = 400, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(0.4, 1.2, count).astype(np.float32))


@pytest.mark.parametrize(("form", "zero_point"), [("u8", 0), ("u8", 100), ("u4", 3), ("u2", 1), ("u1", 0), ("u1", 0.5)])
class TestRoundToCodes:
    def test_forwards_it_is_the_fake_quantisation_of_the_simulation(self, form: str, zero_point: float) -> None:
        held = Range(0.013 if form == "u8" else 0.37, zero_point)
        x = values()
        low = -zero_point
        found = round_to_codes(x, torch.tensor(held.scale), low, low + top_code(form), sign=form == "u1")
        assert torch.allclose(found, fake_quantise(x, held, form), atol=1e-6)

    def test_backwards_it_is_lsq(self, form: str, zero_point: float) -> None:
        step = 0.013 if form == "u8" else 0.37
        low, high = -zero_point, top_code(form) - zero_point
        x, scale = values().requires_grad_(), torch.tensor(step, requires_grad=True)
        g = values(seed=1)
        y = round_to_codes(x, scale, low, high, sign=form == "u1")
        y.backward(g)
        ratio = x.detach().double() / step
        inside = (ratio >= low) & (ratio <= high)
        assert torch.equal(x.grad, g * inside)
        by_hand = (g.double() * (y.detach().double() / step - ratio * inside)).sum()
        assert float(scale.grad) == pytest.approx(float(by_hand), rel=1e-3, abs=1e-3)


def test_the_scale_of_a_grid_has_the_gradient_of_lsq() -> None:
    weight = np.random.default_rng(0).normal(0, 1, (4, 3, 3, 3)).astype(np.float32)
    variant = Variant("int2")
    layer = encoding_of(variant).quantise(weight, np.zeros(4, np.float32), variant)
    rule = Grid(weight, layer, layer)
    assert np.array_equal(rule.ratio().detach().numpy(), layer.levels)
    g = values(108, 2).view(4, 3, 3, 3)
    rule().backward(g)
    r, s = rule.steps().detach(), rule.scale().detach()
    inside = r.abs() <= 4  # the outermost levels, -3 and 3, and half a cell beyond
    q = torch.from_numpy(layer.levels.astype(np.float32))
    by_scale = (g * torch.where(inside, q - r, q)).sum((1, 2, 3), keepdim=True)
    # d scale / d rho = scale; divided by sqrt(K top)
    assert torch.allclose(rule.rho.grad, s * by_scale / (27 * 3) ** 0.5, rtol=1e-4, atol=1e-5)
    assert torch.allclose(rule.latent.grad, g * s * inside * rule.magnitude, rtol=1e-5)


class TestBinariseNear:
    def operands(self) -> tuple[torch.Tensor, ...]:
        w = values().requires_grad_()
        alpha, delta = (torch.tensor(x, requires_grad=True) for x in (0.9, 0.6))
        return w, alpha, delta, (w.detach().abs() - 0.9).abs() < 0.6

    def test_forwards(self) -> None:
        w, alpha, delta, near = self.operands()
        y = binarise_near(w, alpha, delta, near, "exact")
        assert torch.equal(y[~near], w[~near])
        assert set(y[near].tolist()) == {alpha.item(), -alpha.item()}

    @pytest.mark.parametrize("rule", ["exact", "published", "frozen"])
    def test_backwards(self, rule: str) -> None:
        w, alpha, delta, near = self.operands()
        g = values(seed=3)
        binarise_near(w, alpha, delta, near, rule).backward(g)
        sign = torch.where(w.detach() < 0, -1.0, 1.0)
        total = float((g * near * sign).sum())
        assert torch.equal(w.grad, g)
        assert float(alpha.grad) == pytest.approx(
            {"exact": total, "published": -total / 400, "frozen": 0.0}[rule], rel=1e-4
        )
        by_hand = float((g * near * sign * (0.9 - w.detach().abs())).sum()) / (0.6 * 400)
        assert float(delta.grad) == pytest.approx(by_hand, rel=1e-4)

    def test_the_exact_gradient_of_alpha_is_the_derivative(self) -> None:
        w, alpha, delta, near = self.operands()
        g = values(seed=3)
        binarise_near(w, alpha, delta, near, "exact").backward(g)
        above, below = (
            float((binarise_near(w.detach(), torch.tensor(0.9 + h), delta.detach(), near, "exact") * g).double().sum())
            for h in (1e-2, -1e-2)
        )
        assert float(alpha.grad) == pytest.approx((above - below) / 2e-2, rel=1e-2)


def test_decay_inside_the_estimator_and_values_to_the_last_bit() -> None:
    w = values().requires_grad_()
    y = straight_through(w.detach().sign(), decayed(w, 0.25))
    assert torch.equal(y, w.detach().sign())
    y.sum().backward()
    assert torch.allclose(w.grad, 1 + 0.25 * w.detach())
