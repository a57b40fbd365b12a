"""Every operation alone: captured, it computes what the module computes, and is the operation that it should be."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bitplan import network as ops
from bitplan.capture import capture
from bitplan.network import Network
from bitplan.simulate import Simulator

IMAGE = (6, 8, 10)


class Function(nn.Module):
    """A forward without parameters."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class TwoInputs(Function):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:  # type: ignore[override]
        return self.function(x, y)


CHANNELS = torch.linspace(-1, 2, 6).view(6, 1, 1)

OPERATIONS = {
    # activations
    "relu": (nn.ReLU(), IMAGE, "Activate"),
    "relu in place": (nn.ReLU(inplace=True), IMAGE, "Activate"),
    "relu6": (nn.ReLU6(), IMAGE, "Activate"),
    "hardtanh": (nn.Hardtanh(-0.5, 0.7), IMAGE, "Activate"),
    "clamp": (Function(lambda x: x.clamp(-0.1, 0.4)), IMAGE, "Activate"),
    "clamp below": (Function(lambda x: x.clamp(min=0.2)), (6,), "Activate"),
    "clamp above": (Function(lambda x: torch.clamp_max(x, 0.2)), (6,), "Activate"),
    "hard swish": (nn.Hardswish(), IMAGE, "Activate"),
    "silu": (nn.SiLU(), IMAGE, "Activate"),
    "sigmoid": (Function(torch.sigmoid), IMAGE, "Activate"),
    "hard sigmoid": (nn.Hardsigmoid(), IMAGE, "Activate"),
    "two clamps": (Function(lambda x: F.relu6(F.relu(x))), IMAGE, "Activate"),
    "two other activations": (Function(lambda x: F.silu(F.relu(x))), IMAGE, "Activate Activate"),
    # arithmetic
    "add itself": (Function(lambda x: x + x), IMAGE, "Add"),
    "multiply by itself": (Function(lambda x: x * x), IMAGE, "Mul"),
    "add a number": (Function(lambda x: x + 2), IMAGE, "ScaleShift"),
    "add times alpha": (Function(lambda x: torch.add(x, torch.relu(x), alpha=3)), (6,), "Activate ScaleShift Add"),
    "add alpha and number": (Function(lambda x: torch.add(x, 2, alpha=3)), (6,), "ScaleShift"),
    "subtract": (Function(lambda x: x - torch.relu(x) * 2), IMAGE, "Activate ScaleShift Add"),
    "subtract a number": (Function(lambda x: x - 2), IMAGE, "ScaleShift"),
    "subtract from a number": (Function(lambda x: 1 - x), IMAGE, "ScaleShift"),
    "subtract from channels": (Function(lambda x: CHANNELS - x), IMAGE, "ScaleShift"),
    "multiply by a number": (Function(lambda x: 0.3 * x), IMAGE, "ScaleShift"),
    "multiply by channels": (Function(lambda x: x * CHANNELS), IMAGE, "ScaleShift"),
    "multiply a vector": (Function(lambda x: x * CHANNELS.view(6)), (6,), "ScaleShift"),
    "multiply rows": (Function(lambda x: x * CHANNELS.view(6)), (4, 6), "ScaleShift"),
    "divide": (Function(lambda x: x / 7), IMAGE, "ScaleShift"),
    "divide by channels": (Function(lambda x: x / (CHANNELS + 3)), IMAGE, "ScaleShift"),
    "negate": (Function(lambda x: -x), IMAGE, "ScaleShift"),
    "a chain of constants": (Function(lambda x: ((x + 1) * 2 - 3) / 4), IMAGE, "ScaleShift"),
    "softmax of a vector": (nn.Softmax(1), (6,), "Softmax"),
    "softmax of rows": (nn.Softmax(-1), (4, 6), "Softmax"),
    "softmax of channels": (nn.Softmax2d(), IMAGE, "Softmax"),
    # pools
    "max pool": (nn.MaxPool2d(3, 2, 1), IMAGE, "MaxPool"),
    "max pool, ceil mode": (nn.MaxPool2d(3, 2, ceil_mode=True), IMAGE, "MaxPool"),
    "max pool, dilated": (nn.MaxPool2d((2, 3), 1, dilation=(3, 2)), IMAGE, "MaxPool"),
    "max pool, default stride": (Function(lambda x: F.max_pool2d(x, 2)), IMAGE, "MaxPool"),
    "average pool": (nn.AvgPool2d(3, 2, 1), IMAGE, "AveragePool"),
    "average pool, padding left out": (nn.AvgPool2d(3, 2, 1, count_include_pad=False), IMAGE, "AveragePool"),
    "average pool, ceil mode": (nn.AvgPool2d(3, 2, ceil_mode=True), IMAGE, "AveragePool"),
    "average pool of everything": (nn.AvgPool2d((8, 10)), IMAGE, "Mean"),
    "adaptive average": (nn.AdaptiveAvgPool2d((4, 5)), IMAGE, "AveragePool"),
    "adaptive average to a pixel": (nn.AdaptiveAvgPool2d(1), IMAGE, "Mean"),
    "adaptive average of one axis": (nn.AdaptiveAvgPool2d((None, 5)), IMAGE, "AveragePool"),
    "adaptive maximum": (nn.AdaptiveMaxPool2d((4, 5)), IMAGE, "MaxPool"),
    "mean": (Function(lambda x: x.mean((2, 3))), IMAGE, "Mean"),
    "mean, kept": (Function(lambda x: x.mean((-1, -2), keepdim=True)), IMAGE, "Mean"),
    "mean of flat pixels": (Function(lambda x: x.flatten(2).mean(-1)), IMAGE, "Mean"),
    "mean of rows, kept": (Function(lambda x: x.mean(2, keepdim=True)), (4, 6), "Reshape Mean Reshape"),
    "mean over height": (Function(lambda x: x.mean(2)), IMAGE, "AveragePool Reshape"),
    "mean over width, kept": (Function(lambda x: x.mean(3, keepdim=True)), IMAGE, "AveragePool"),
    "mean over both in turn": (Function(lambda x: x.mean(3).mean(2)), IMAGE, "AveragePool Mean"),
    "maximum": (Function(lambda x: x.amax((2, 3))), IMAGE, "MaxPool Reshape"),
    # moving elements
    "pad": (Function(lambda x: F.pad(x, (1, 1, 2, 2))), IMAGE, "Pad"),
    "pad one side": (nn.ZeroPad2d((0, 1, 0, 1)), IMAGE, "Pad"),
    "pad with a number": (nn.ConstantPad2d(2, -1.5), IMAGE, "Pad"),
    "pad channels": (Function(lambda x: F.pad(x, (0, 0, 0, 0, 1, 2))), IMAGE, "Pad"),
    "pad a vector": (Function(lambda x: F.pad(x, (1, 2))), (6,), "Reshape Pad Reshape"),
    "join zeros": (Function(lambda x: torch.cat([torch.zeros_like(x), x], 1)), IMAGE, "Pad"),
    "join new zeros": (Function(lambda x: torch.cat([x, x.new_zeros(x.size(0), 2, 8, 10)], 1)), IMAGE, "Pad"),
    "strided slice": (Function(lambda x: x[:, :, ::2, 1::3]), IMAGE, "Slice"),
    "channel slice": (Function(lambda x: x[:, 1:-2]), IMAGE, "Slice"),
    "slices in a row": (Function(lambda x: x[:, 1:][:, ::2][:, 1:]), IMAGE, "Slice"),
    "select": (Function(lambda x: x[:, 2]), IMAGE, "Slice Reshape"),
    "select a column": (Function(lambda x: x[:, :, :, -1]), IMAGE, "Slice Reshape"),
    "chunk and join": (Function(lambda x: torch.cat(x.chunk(4, 1)[::-1], 1)), IMAGE, "Slice Slice Slice Concat"),
    "split": (Function(lambda x: torch.cat(x.split([1, 5], 1)[::-1], 1)), IMAGE, "Slice Slice Concat"),
    "unbind": (Function(lambda x: x.unbind(1)[1]), (4, 6), "Slice Reshape"),
    "join vectors": (Function(lambda x: torch.cat([x, torch.relu(x)], 1)), (6,), "Activate Concat"),
    "join rows": (
        Function(lambda x: torch.cat([x, torch.relu(x)], 1)),
        (4, 6),
        "Activate Reshape Reshape Concat Reshape",
    ),
    "flatten": (nn.Flatten(), IMAGE, "Reshape"),
    "view": (Function(lambda x: x.view(x.size(0), -1)), IMAGE, "Reshape"),
    "reshape to rows": (Function(lambda x: x.reshape(-1, 6, 80)), IMAGE, "Reshape"),
    "unflatten": (nn.Unflatten(1, (2, 3)), IMAGE, "Reshape"),
    "permute": (Function(lambda x: x.permute(0, 2, 3, 1)), IMAGE, "Permute"),
    "permute twice": (Function(lambda x: x.permute(0, 2, 3, 1).permute(0, 2, 1, 3)), IMAGE, "Permute"),
    "transpose": (Function(lambda x: x.transpose(-1, -2)), IMAGE, "Permute"),
    "permute an axis of size one": (Function(lambda x: x.permute(0, 2, 3, 1)), (1, 4, 5), "Reshape"),
    "squeeze": (Function(lambda x: x.squeeze(3).squeeze(2)), (5, 1, 1), "Reshape"),
    "unsqueeze": (Function(lambda x: x.unsqueeze(1)), (4, 6), "Reshape"),
    "channel shuffle": (nn.ChannelShuffle(3), IMAGE, "Reshape Permute Reshape"),
    "channel shuffle by hand": (
        Function(lambda x: x.view(x.size(0), 2, 3, 8, 10).transpose(1, 2).contiguous().view(x.size(0), 6, 8, 10)),
        IMAGE,
        "Reshape Permute Reshape",
    ),
    "a relu of a relu": (nn.Sequential(nn.ReLU(), nn.ReLU()), IMAGE, "Activate"),
    # layers
    "linear": (nn.Linear(6, 4), (6,), "Linear"),
    "linear without bias": (nn.Linear(6, 4, bias=False), (6,), "Linear"),
    "linear over rows": (nn.Linear(6, 4), (4, 6), "Linear"),
    "linear over more": (nn.Linear(10, 4), IMAGE, "Reshape Linear Reshape"),
    "product with a matrix": (Function(lambda x: x @ torch.linspace(-1, 1, 12).view(6, 2)), (6,), "Linear"),
    "product with a matrix, and a sum": (
        Function(lambda x: torch.addmm(torch.ones(2), x, torch.linspace(-1, 1, 12).view(6, 2), beta=2, alpha=3)),
        (6,),
        "Linear",
    ),
    "batch norm": (nn.BatchNorm2d(6), IMAGE, "ScaleShift"),
    "batch norm of a vector": (nn.BatchNorm1d(6), (6,), "ScaleShift"),
    "batch norm without weights": (nn.BatchNorm2d(6, affine=False), IMAGE, "ScaleShift"),
    "normalised weights": (nn.utils.parametrizations.weight_norm(nn.Linear(6, 4)), (6,), "Linear"),
    "same padding": (nn.Conv2d(6, 4, (4, 3), padding="same", dilation=(1, 2)), IMAGE, "Conv2d"),
    "valid padding": (nn.Conv2d(6, 4, 3, padding="valid"), IMAGE, "Conv2d"),
}


class Together(nn.Module):
    """All cases of one input shape side by side: tracing costs more than what is traced."""

    def __init__(self, cases: list[str]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(OPERATIONS[case][0] for case in cases)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(part(x.clone()) for part in self.parts)


def operations_behind(network: Network, output: str) -> str:
    """What computes an output, without the input, in order."""
    needed = {output}
    for node in reversed(network.nodes):
        if node.name in needed:
            needed.update(node.inputs)
    return " ".join(type(node.op).__name__ for node in network.nodes[1:] if node.name in needed)


@pytest.fixture(scope="module")
def captured(randomise: Callable[[nn.Module], nn.Module]) -> Callable[[tuple[int, ...]], dict[str, Any]]:
    """For each case of an input shape: network, output name, value found, value expected."""

    @cache
    def capture_shape(shape: tuple[int, ...]) -> dict[str, Any]:
        torch.manual_seed(0)
        cases = [case for case, (_, wanted, _) in OPERATIONS.items() if wanted == shape]
        module = randomise(Together(cases)).eval()
        network, weights = capture(module, torch.randn(2, *shape))
        x = torch.randn(5, *shape)
        found = Simulator(network, weights).outputs(x)
        return {
            case: (network, name, found[name], expected)
            for case, name, expected in zip(cases, network.outputs, module(x), strict=True)
        }

    return capture_shape


@pytest.mark.parametrize("case", OPERATIONS)
def test_an_operation_alone(case, captured):
    _, shape, operations = OPERATIONS[case]
    network, output, found, expected = captured(shape)[case]
    assert operations_behind(network, output) == operations
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()


NOTHING = {
    "dropout": nn.Sequential(nn.Identity(), nn.Dropout(0.3), nn.Dropout2d(0.3)),
    "copies": Function(lambda x: x.contiguous().clone().to(torch.float32).detach()),
    "moves that undo each other": Function(lambda x: x.flatten(2).view(x.size(0), 6, 8, 10)),
    "an average of one pixel": nn.AvgPool2d(1),
}


@pytest.mark.parametrize("case", NOTHING)
def test_what_does_nothing_leaves_no_node(case, captured_equally):
    network = captured_equally(NOTHING[case], IMAGE)
    assert len(network.nodes) == 1
    assert network.outputs == (network.inputs[0].name,)


TWO_VALUES = {
    "add": (lambda x, y: x + y, IMAGE, IMAGE, "Add"),
    "subtract": (lambda x, y: x - y, IMAGE, IMAGE, "ScaleShift Add"),
    "multiply": (lambda x, y: x * y, (5,), (5,), "Mul"),
    "multiply by a gate": (lambda x, y: x * y, IMAGE, (6, 1, 1), "Mul"),
    "a gate times": (lambda x, y: x * y, (6, 1, 1), IMAGE, "Mul"),
    "add a gate": (lambda x, y: x + y, (6, 1, 1), IMAGE, "Add"),
    "an expanded gate": (lambda x, y: x * y.expand_as(x), IMAGE, (6, 1, 1), "Mul"),
    "concat": (lambda x, y: torch.cat([x, y, x], 1), IMAGE, (2, 8, 10), "Concat"),
}


@pytest.mark.parametrize("case", TWO_VALUES)
def test_an_operation_on_two_inputs(case, captured_equally):
    function, first, second, expected = TWO_VALUES[case]
    network = captured_equally(TwoInputs(function), first, second)
    assert [node.name for node in network.inputs] == ["x", "y"]
    assert " ".join(type(node.op).__name__ for node in network.nodes[2:]) == expected


def test_every_operation_of_a_network_is_tried():
    tried = " ".join(case[-1] for case in (*OPERATIONS.values(), *TWO_VALUES.values())).split()
    assert {op.__name__ for op in ops.OPS} - {"Input"} == set(tried)
