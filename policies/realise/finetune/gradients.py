"""Straight-through gradients: what training puts in the place of the derivative of a rounding."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def straight_through(value: Tensor, carrier: Tensor) -> Tensor:
    """`value` forwards, to the last bit; the gradient goes to `carrier` (arXiv 1308.3432)."""
    return value.detach() + (carrier - carrier.detach())


class _RoundToCodes(torch.autograd.Function):
    """scale * clamp(round(x / scale), low, high); see `round_to_codes`. One function and not a chain of operations, for
    activations are large: it keeps two tensors and visits memory as seldom as it can. `slope`, what the scale's gradient
    sums, is a difference of near values, and so has to be taken element by element: bfloat16 holds no sums of them."""

    @staticmethod
    def forward(context: Any, x: Tensor, scale: Tensor, low: float, high: float, sign: bool) -> Tensor:
        step = scale.item()
        if sign:  # u1: the middle between the two levels belongs to the lower one
            y = torch.where(x > step * (low + high) / 2, step * high, step * low).to(x.dtype)
        else:
            y = (x * (1 / step)).round_().clamp_(low, high).mul_(step)
        slope = y - torch.ops.aten.hardtanh_backward(x, x, step * low, step * high)  # y - x inside, y outside
        context.save_for_backward(x, slope)
        context.numbers = step, low, high
        return y

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, slope = context.saved_tensors
        g = laid_out_like(x, gradients[0])
        step, low, high = context.numbers
        inside = torch.ops.aten.hardtanh_backward(g, x, step * low, step * high)  # g inside, else 0, in one pass
        return inside, (g * slope).sum(dtype=torch.float32) / step, None, None, None


def laid_out_like(x: Tensor, g: Tensor) -> Tensor:
    """g, channels last if x is. Gradients of means and slices come channels first, and all that is computed from both
    layouts, here and in the layers before, visits memory in strides."""
    last = x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last)
    return g.contiguous(memory_format=torch.channels_last) if last else g


def round_to_codes(x: Tensor, scale: Tensor, low: float, high: float, *, sign: bool = False) -> Tensor:
    """Fake quantisation with a learned step (LSQ, arXiv 1902.08153): scale * clamp(round(x / scale), low, high), or with
    `sign` the upper of two levels where x lies above their middle. `scale` is a positive scalar.

    dx = g where x lies strictly between the outermost levels, else 0 (clipped straight-through);
    dscale = sum g (q - x / scale) between them, sum g q outside, with q the code less its zero point.
    """
    found: Tensor = _RoundToCodes.apply(x, scale, low, high, sign)
    return found


class _Binarise(torch.autograd.Function):
    """APB's operator; see `binarise_near`."""

    @staticmethod
    def forward(context: Any, w: Tensor, alpha: Tensor, delta: Tensor, near: Tensor, rule: str) -> Tensor:
        context.save_for_backward(w, alpha, delta, near)
        context.rule = rule
        return torch.where(near, torch.where(w < 0, -alpha, alpha), w)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (g,) = gradients
        w, alpha, delta, near = context.saved_tensors
        signed = g * near * torch.where(w < 0, -1.0, 1.0)
        total = signed.sum()
        towards_alpha = {"exact": total, "published": -total / w.numel(), "frozen": torch.zeros_like(total)}
        towards_delta = (signed * (alpha - w.abs())).sum() / (delta * w.numel())
        return g, towards_alpha[context.rule], towards_delta, None, None


def binarise_near(w: Tensor, alpha: Tensor, delta: Tensor, near: Tensor, rule: str) -> Tensor:
    """The operator of automatic prune binarization (arXiv 2306.08960): sign(w) alpha, zero counting as positive, where
    `near` says that | |w| - alpha | < delta; w elsewhere. Over n weights, with chi = near and incoming gradient g:

    dw = g; ddelta = 1 / (delta n) sum g chi sign(w) (alpha - |w|);
    dalpha = sum g chi sign(w) for `exact`, -1/n times that for `published` (the authors' code), 0 for `frozen`.
    """
    found: Tensor = _Binarise.apply(w, alpha, delta, near, rule)
    return found


class _Decayed(torch.autograd.Function):
    """The identity with g + decay * w as its gradient; see `decayed`."""

    @staticmethod
    def forward(context: Any, w: Tensor, decay: float) -> Tensor:
        context.save_for_backward(w)
        context.decay = decay
        return w.view_as(w)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (w,) = context.saved_tensors
        return gradients[0] + context.decay * w, None


def decayed(w: Tensor, decay: float) -> Tensor:
    """w, with weight decay inside the straight-through estimator (PTQ, arXiv 2107.10998): dw = g + decay w."""
    found: Tensor = _Decayed.apply(w, decay)
    return found
