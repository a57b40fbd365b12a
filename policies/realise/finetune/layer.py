"""A layer under training: its rule's weight, its bias and, where asked for, a batch norm behind it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bitplan.encodings import EncodedLayer
from bitplan.network import IDENTITY, RELU, Activation, Conv2d, Linear, Node
from bitplan.operations import activate, convolve
from bitplan.policies.realise.finetune.rules import Rule

EPSILON = 1e-5
MOMENTUM = 0.1


class TrainedLayer(nn.Module):
    """y = activation(op(x) + bias [+ residual]), and with `normalise` batch norm in place of the bias."""

    def __init__(self, node: Node, rule: Rule, *, normalise: bool) -> None:
        super().__init__()
        if not isinstance(node.op, Conv2d | Linear):
            raise TypeError(f"{type(node.op).__name__} is not a layer with weights")
        self.op, self.activation, self.rule = node.op, node.activation, rule
        self.bias = nn.Parameter(torch.tensor(rule.start.bias))
        self.norm = Norm(len(self.bias)) if normalise and isinstance(node.op, Conv2d) else None
        self.observing = False
        """While true, `norm` takes over the statistics that it sees, and changes nothing."""

    def forward(self, x: Tensor, residual: Tensor | None, padding: float) -> Tensor:
        weight = self.rule()
        bias = self.bias if self.norm is None or self.observing else None
        if isinstance(self.op, Conv2d):
            op = replace(self.op, activation=IDENTITY)
            if padding:  # formats without a code for zero pad with one of their levels
                top, bottom, left, right = op.padding
                x, op = F.pad(x, (left, right, top, bottom), value=padding), replace(op, padding=(0, 0, 0, 0))
            y = convolve(op, x, weight.contiguous(memory_format=torch.channels_last), bias)
        else:
            y = F.linear(x, weight.flatten(1), bias)
        if self.norm is not None:
            y = self.norm.observe(y, self.bias) if self.observing else self.norm(y)
        return finish(y, residual, self.activation)

    def encoded(self) -> EncodedLayer:
        """The layer as the file holds it, batch norm folded."""
        return self.rule.encoded(*self._gain_and_bias())

    def floats(self) -> tuple[np.ndarray, np.ndarray]:
        """Weight [out, in / groups, height, width] and bias [out] before they are rounded, float32, batch norm folded."""
        gain, bias = self._gain_and_bias()
        return self.rule.floats(gain), np.array(bias, np.float32)

    def _gain_and_bias(self) -> tuple[np.ndarray, np.ndarray]:
        bias = self.bias.detach().numpy()
        return (np.ones_like(bias), bias) if self.norm is None else self.norm.folded()


class Norm(nn.Module):
    """Batch norm (arXiv 1502.03167) that begins as the identity plus a bias. Its gain is learned as a logarithm: it stays
    positive, as the scale must into which it is folded."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.log_gain = nn.Parameter(torch.zeros(channels))
        self.shift = nn.Parameter(torch.zeros(channels))
        self.mean: Tensor
        self.variance: Tensor
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("variance", torch.ones(channels))

    def forward(self, y: Tensor) -> Tensor:
        training = self.training and y.numel() > y.shape[1]  # one value per channel has no variance
        return F.batch_norm(y, self.mean, self.variance, self.log_gain.exp(), self.shift, training, MOMENTUM, EPSILON)

    @torch.no_grad()
    def observe(self, y: Tensor, bias: Tensor) -> Tensor:
        """Takes over the statistics of y, which holds the bias, and passes y on."""
        variance, mean = torch.var_mean(y.float(), (0, 2, 3), correction=0)
        self.mean.copy_(mean - bias)
        self.variance.copy_(variance)
        self.log_gain.copy_(0.5 * (variance + EPSILON).log())
        self.shift.copy_(mean)
        return y

    def folded(self) -> tuple[np.ndarray, np.ndarray]:
        """Gain and shift, float32 [C], that do the same to y."""
        gain = self.log_gain.detach().exp() / (self.variance + EPSILON).sqrt()
        return gain.numpy(), (self.shift.detach() - gain * self.mean).numpy()


def finish(y: Tensor, residual: Tensor | None, activation: Activation) -> Tensor:
    """activation(y [+ residual]), in place. A ReLU by itself: its gradient needs the result only, that of a clamp a copy."""
    if residual is not None:
        y = y.add_(residual)
    return y.relu_() if activation == RELU else activate(activation, y)
