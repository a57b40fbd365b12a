"""What is folded and fused, and what must not be."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from bitplan.capture import capture
from bitplan.network import IDENTITY, RELU, RELU6, Activation, Conv2d, Linear, Pad, ScaleShift, Slice
from bitplan.simulate import Simulator


class Net(nn.Module):
    """A forward over two convolutions and a batch norm of four channels."""

    def __init__(self, function):
        super().__init__()
        self.a, self.b = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1)
        self.norm = nn.BatchNorm2d(4)
        self.function = function

    def forward(self, x):
        return self.function(self, x)


CASES = {
    "batch norm": (lambda m, x: m.norm(m.a(x)), "a:Conv2d(x)"),
    "batch norm and activation": (lambda m, x: F.relu(m.norm(m.a(x))), "a:Conv2d(x)"),
    "batch norm of an activation": (lambda m, x: m.norm(F.relu(m.a(x))), "a:Conv2d(x) output:ScaleShift(a)"),
    "constants behind batch norm": (lambda m, x: m.norm(m.a(x)) * 2 + 1, "a:Conv2d(x)"),
    "constants in front": (lambda m, x: m.a(x / 2 - 1), "div:ScaleShift(x) a:Conv2d(div)"),
    "batch norm of one of two readers": (
        lambda m, x: m.norm(y := m.a(x)) * y,
        "a:Conv2d(x) norm:ScaleShift(a) output:Mul(norm,a)",
    ),
    "batch norm behind a pool": (
        lambda m, x: m.norm(F.max_pool2d(m.a(x), 2)),
        "a:Conv2d(x) maxpool:MaxPool(a) output:ScaleShift(maxpool)",
    ),
    "a residual": (lambda m, x: F.relu6(m.a(x) + x), "a:Conv2d(x,x)"),
    "a residual on the left": (lambda m, x: x + m.a(x), "a:Conv2d(x,x)"),
    "a residual made later": (
        lambda m, x: (y := m.a(x), F.silu(x) + y)[1],
        "silu:Activate(x) a:Conv2d(x,silu)",
    ),
    "two layers: the later one adds": (lambda m, x: m.a(x) + m.b(x), "a:Conv2d(x) b:Conv2d(x,a)"),
    "a layer that others read": (lambda m, x: m.b(y := m.a(x)) + y, "a:Conv2d(x) b:Conv2d(a,a)"),
    "activated before the sum": (lambda m, x: F.relu(m.a(x)) + x, "a:Conv2d(x) output:Add(a,x)"),
    "twice the same": (lambda m, x: (y := m.a(x)) + y, "a:Conv2d(x) output:Add(a,a)"),
    "two residuals": (lambda m, x: m.a(x) + x + x, "a:Conv2d(x,x) output:Add(a,x)"),
    "a gate is no residual": (
        lambda m, x: x + m.a(x.mean((2, 3), True)),
        "mean:Mean(x) a:Conv2d(mean) output:Add(x,a)",
    ),
    "a gated layer is none either": (
        lambda m, x: m.b(x) + x.mean((2, 3), True),
        "b:Conv2d(x) mean:Mean(x) output:Add(b,mean)",
    ),
    "an output that is read": (
        lambda m, x: (y := m.a(x), F.relu(y)),
        "a:Conv2d(x) output_1:Activate(a)",
    ),
    "a residual behind an output": (
        lambda m, x: (y := m.a(x), y + x),
        "a:Conv2d(x) output_1:Add(a,x)",
    ),
    "pad": (lambda m, x: m.a(F.pad(x, (0, 1, 2, 3))), "a:Conv2d(x)"),
    "pad for two": (
        lambda m, x: m.a(y := F.pad(x, (0, 1, 0, 1))) * m.b(y),
        "a:Conv2d(x) b:Conv2d(x) output:Mul(a,b)",
    ),
    "pad that others read": (
        lambda m, x: m.a(y := F.pad(x, (0, 1, 0, 1))) * y,
        "pad:Pad(x) a:Conv2d(pad) output:Mul(a,pad)",
    ),
    "pad with ones": (lambda m, x: m.a(F.pad(x, (0, 1, 0, 1), value=1.0)), "pad:Pad(x) a:Conv2d(pad)"),
    "pad as a residual": (
        lambda m, x: m.a(y := F.pad(x, (0, 1, 0, 1))) + y,
        "pad:Pad(x) a:Conv2d(pad,pad)",
    ),
    "dead ends": (lambda m, x: (m.b(x), m.a(x))[1], "a:Conv2d(x)"),
    "mean and flatten": (lambda m, x: m.a(x).mean((2, 3), True).flatten(1), "a:Conv2d(x) output:Mean(a)"),
    "a pixel": (lambda m, x: m.b(x.mean((2, 3))[:, :, None, None]), "mean:Mean(x) b:Conv2d(mean)"),
    "a mean that others read": (
        lambda m, x: (m.b(y := x.mean((2, 3), True)), y.flatten(1)),
        "mean:Mean(x) b:Conv2d(mean) output_1:Reshape(mean)",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_structure(case, captured_equally, randomise):
    function, expected = CASES[case]
    network = captured_equally(randomise(Net(function)), (4, 6, 6))
    found = [f"{n.name}:{type(n.op).__name__}({','.join(n.inputs)})" for n in network.nodes[1:]]
    assert " ".join(found) == expected


def test_activations_are_fused_as_one_clamp(captured_equally):
    network = captured_equally(Net(lambda m, x: F.relu6(m.a(x) + x)), (4, 6, 6))
    assert network.nodes[-1].activation == RELU6
    network = captured_equally(Net(lambda m, x: F.relu(m.a(x)).clamp(max=0.5)), (4, 6, 6))
    assert network.nodes[-1].activation == Activation("clamp", 0.0, 0.5)
    network = captured_equally(Net(lambda m, x: F.relu(F.silu(m.a(x)))), (4, 6, 6))
    assert [node.activation for node in network.nodes[1:]] == [Activation("silu"), RELU]


def test_clamps_that_do_not_overlap_stay_two(captured_equally):
    network = captured_equally(Net(lambda m, x: m.a(x).clamp(max=-1.0).clamp(min=2.0) + x), (4, 6, 6))
    assert [node.name for node in network.nodes[1:]] == ["a", "clamp", "output"]


def test_padding_is_added_to_that_of_the_convolution(captured_equally):
    network = captured_equally(Net(lambda m, x: m.a(F.pad(x, (0, 1, 2, 3)))), (4, 6, 6))
    assert network.nodes[-1].op == Conv2d((3, 3), padding=(3, 4, 1, 2))


def test_slices_in_a_row_stay_inside_the_value(captured_equally):
    network = captured_equally(Net(lambda m, x: x[:, 1:][:, ::2][:, :, 1::2][:, :, 1:]), (4, 6, 6))
    assert [node.op for node in network.nodes[1:]] == [Slice(((1, 4, 2), (3, 6, 2), (0, 6, 1)))]


def test_channels_are_padded_by_a_node_of_their_own(captured_equally):
    network = captured_equally(Net(lambda m, x: F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2))), (4, 6, 6))
    assert network.nodes[-1].op == Pad((0, 0, 0, 0), (2, 2))


def test_a_linear_layer_takes_scale_residual_and_activation(captured_equally, randomise):
    class Dense(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.norm = nn.Linear(5, 5, bias=False), nn.BatchNorm1d(5)

        def forward(self, x):
            return F.hardswish(self.norm(self.fc(x)) + x)

    network = captured_equally(randomise(Dense()), (5,))
    assert [node.op for node in network.nodes[1:]] == [Linear(Activation("hard_swish"))]
    assert network.nodes[1].inputs == ("x", "x")


def test_batch_norm_after_relu_stays(captured_equally, randomise):
    network = captured_equally(randomise(Net(lambda m, x: m.b(m.norm(F.relu(m.a(x)))))), (4, 6, 6))
    assert [node.op for node in network.nodes[1:]] == [
        Conv2d((3, 3), padding=(1, 1, 1, 1), activation=RELU),
        ScaleShift(IDENTITY),
        Conv2d((1, 1)),
    ]


sizes = st.tuples(st.integers(1, 4), st.integers(1, 4))
steps = st.tuples(st.integers(1, 2), st.integers(1, 3))


@st.composite
def convolutions(draw):
    """A convolution of six channels, with batch norm or without."""
    groups = draw(st.sampled_from([1, 2, 3, 6]))
    channels = groups * draw(st.integers(1, 2))
    padding = draw(st.tuples(st.integers(0, 3), st.integers(0, 3)))
    conv = nn.Conv2d(6, channels, draw(sizes), draw(steps), padding, draw(steps), groups, bias=draw(st.booleans()))
    return nn.Sequential(conv, nn.BatchNorm2d(channels) if draw(st.booleans()) else nn.Identity(), nn.ReLU())


class Together(nn.Module):
    """Modules side by side: tracing costs more than what is traced."""

    def __init__(self, parts):
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, x):
        return tuple(part(x) for part in self.parts)


@settings(max_examples=8, deadline=None)
@given(parts=st.lists(convolutions(), min_size=4, max_size=6))
def test_convolutions(parts):
    module = Together(parts).eval()
    network, weights = capture(module, torch.randn(2, 6, 10, 11))
    for index, (conv, _, _) in enumerate(parts):
        top, left = conv.padding
        expected = Conv2d(conv.kernel_size, conv.stride, (top, top, left, left), conv.dilation, conv.groups, RELU)
        assert network.by_name[f"parts.{index}.0"].op == expected
    assert len(network.nodes) == 1 + len(parts)
    x = torch.randn(3, 6, 10, 11)
    with torch.no_grad():
        outputs = module(x)
    for found, b in zip(Simulator(network, weights).outputs(x).values(), outputs, strict=True):
        assert (found - b).abs().max() <= 1e-4 * b.abs().max()
