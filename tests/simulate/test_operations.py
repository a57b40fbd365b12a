"""Operations whose meaning torch does not offer as one call, against plain loops."""

from __future__ import annotations

from math import inf, nan

import numpy as np
import pytest
import torch

from bitplan.network import (
    Activate,
    Activation,
    AveragePool,
    Conv2d,
    Linear,
    MaxPool,
    Node,
    Pad,
    ScaleShift,
    Slice,
)
from bitplan.operations import activate, convolve, dense, execute, scale_shift

X = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 3, 5, 6)).astype(np.float32))


def windows(op, x, fill):
    """For every output pixel the window [N, C, kernel pixels] that it sees."""
    top, bottom, left, right = op.padding
    padded = np.pad(x.numpy(), ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=fill)
    dilation = getattr(op, "dilation", (1, 1))
    spans = [d * (k - 1) + 1 for d, k in zip(dilation, op.kernel, strict=True)]
    sizes = [(n - span) // s + 1 for n, span, s in zip(padded.shape[2:], spans, op.stride, strict=True)]
    for i in range(sizes[0]):
        for j in range(sizes[1]):
            a, b = i * op.stride[0], j * op.stride[1]
            window = padded[:, :, a : a + spans[0] : dilation[0], b : b + spans[1] : dilation[1]]
            yield i, j, window.reshape(*window.shape[:2], -1)


PADDINGS = [(0, 0, 0, 0), (1, 1, 1, 1), (0, 2, 1, 0), (2, 0, 0, 2)]


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("stride", [(1, 1), (2, 3)])
def test_max_pool_ignores_padding(padding, stride):
    op = MaxPool((3, 2), stride, padding, (1, 2))
    found = execute(Node("p", op, ("x",), (3, 1, 1)), [X])
    for i, j, window in windows(op, X, -np.inf):
        np.testing.assert_array_equal(found[:, :, i, j].numpy(), window.max(-1))


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("count_padding", [True, False])
def test_average_pool_counts_padding_if_told(padding, count_padding):
    op = AveragePool((3, 3), (2, 1), padding, count_padding)
    found = execute(Node("p", op, ("x",), (3, 1, 1)), [X])
    for i, j, window in windows(op, X, nan):
        mean = np.nansum(window, -1) / 9 if count_padding else np.nanmean(window, -1)
        np.testing.assert_allclose(found[:, :, i, j].numpy(), mean, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("padding", PADDINGS)
def test_convolution_with_one_sided_padding(padding):
    weight = torch.randn(4, 3, 2, 3)
    op = Conv2d((2, 3), (1, 2), padding, (2, 1))
    found = convolve(op, X, weight, torch.arange(4.0))
    for i, j, window in windows(op, X, 0):
        expected = np.einsum("nck,ock->no", window, weight.reshape(4, 3, -1).numpy()) + np.arange(4)
        np.testing.assert_allclose(found[:, :, i, j].numpy(), expected, rtol=1e-4, atol=1e-5)


def test_pad_is_top_bottom_left_right_and_channels():
    found = execute(Node("p", Pad((1, 0, 0, 2), (1, 3), 0.5), ("x",), (7, 6, 8)), [X])
    expected = np.pad(X.numpy(), ((0, 0), (1, 3), (1, 0), (0, 2)), constant_values=0.5)
    np.testing.assert_array_equal(found.numpy(), expected)


def test_slice_takes_ranges_per_axis():
    found = execute(Node("s", Slice(((1, 3, 1), (0, 5, 2), (1, 6, 3))), ("x",), (2, 3, 2)), [X])
    assert torch.equal(found, X[:, 1:3, ::2, 1::3])


def test_scale_and_shift_go_by_channel_of_images_and_by_the_last_axis_else():
    scale, shift = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.0, 1.0, -1.0])
    image = scale_shift(ScaleShift(), X, scale, shift)
    torch.testing.assert_close(image[:, 1], X[:, 1] * 2 + 1)
    rows = torch.randn(2, 4, 3)
    torch.testing.assert_close(scale_shift(ScaleShift(), rows, scale, shift)[..., 2], rows[..., 2] * 3 - 1)


def test_activation_comes_after_bias_and_residual():
    relu = Activation("clamp", 0.0, inf)
    x, residual = torch.tensor([[1.0, -2.0]]), torch.tensor([[-5.0, 3.0]])
    found = dense(Linear(relu), x, torch.eye(2), torch.tensor([1.0, 1.0]), residual)
    assert found.tolist() == [[0.0, 2.0]]
    assert residual.tolist() == [[-5.0, 3.0]]


ACTIVATIONS = {
    "identity": lambda x: x,
    "clamp": lambda x: np.minimum(np.maximum(x, -1), 2),
    "hard_swish": lambda x: x * np.clip(x + 3, 0, 6) / 6,
    "silu": lambda x: x / (1 + np.exp(-x)),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "hard_sigmoid": lambda x: np.clip(x + 3, 0, 6) / 6,
}


@pytest.mark.parametrize("kind", Activation.KINDS)
def test_activations(kind):
    x = torch.linspace(-5, 5, 41)
    activation = Activation(kind, -1.0, 2.0)
    expected = ACTIVATIONS[kind](x.numpy().astype(np.float64))
    np.testing.assert_allclose(activate(activation, x.clone()).numpy(), expected, rtol=1e-5, atol=1e-6)
    before = x.clone()
    execute(Node("a", Activate(activation), ("x",), (41,)), [x])
    assert torch.equal(x, before), "an operation leaves its input alone"


def test_a_layer_is_not_executed_without_weights():
    with pytest.raises(TypeError, match="'c': Conv2d is not an operation without weights"):
        execute(Node("c", Conv2d((1, 1)), ("x",), (3, 5, 6)), [X])
