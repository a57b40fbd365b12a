"""How nodes, inputs and outputs are called, and what happens to modules used twice."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from bitplan.capture import capture
from bitplan.network import Preprocessing


def names(network):
    return [node.name for node in network]


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(4, 4, 3, padding=1)
        self.act = nn.SiLU()

    def forward(self, x):
        return torch.relu(self.act(self.conv1(x)) + x) * x


def test_layers_have_their_module_path_and_operations_the_path_of_their_caller(captured_equally):
    module = nn.Sequential(nn.Sequential(Block()), nn.MaxPool2d(2), nn.Conv2d(4, 2, 1))
    assert names(captured_equally(module, (4, 6, 6))) == ["input", "0.0.conv1", "0.0.add", "0.0.mul", "1", "2"]


def test_a_module_used_twice_is_two_layers_with_the_same_weights(captured_equally):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 1)

        def forward(self, x):
            return self.conv(self.conv(x))

    assert names(captured_equally(Twice(), (4, 6, 6))) == ["x", "conv", "conv.1"]
    _, weights = capture(Twice(), torch.randn(2, 4, 6, 6))
    assert (weights["conv.weight"] == weights["conv.1.weight"]).all()


def test_layers_that_share_a_parameter_keep_their_own_names(captured_equally):
    module = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    module[2].weight = module[0].weight
    assert names(captured_equally(module, (4,))) == ["input", "0", "2"]


def test_a_functional_layer_is_called_by_what_holds_its_weight(captured_equally):
    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(4, 3)
            self.matrix = nn.Parameter(torch.randn(5, 3))

        def forward(self, x):
            return F.linear(F.linear(x, self.inner.weight, self.inner.bias), self.matrix)

    assert names(captured_equally(Functional(), (4,))) == ["x", "inner", "matrix"]


def test_a_module_called_like_an_argument_keeps_its_name(captured_equally):
    class Clash(nn.Module):
        def __init__(self):
            super().__init__()
            self.x = nn.Linear(4, 4)
            self.add = nn.Linear(4, 4)

        def forward(self, x):
            return self.add(F.silu(x + x)) + self.x(x)

    assert names(captured_equally(Clash(), (4,))) == ["x.1", "add.1", "add", "x"]


def test_a_module_that_is_a_layer_itself(captured_equally):
    assert names(captured_equally(nn.Conv2d(3, 4, 3), (3, 5, 5))) == ["input", "conv2d"]


def test_inputs_are_called_like_arguments_and_outputs_in_order(captured_equally):
    class Several(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 3)

        def forward(self, left, right, unused):
            y = left + right
            return {"sum": y, "layer": self.fc(y), "act": torch.relu(y), "input": right}

    module = Several()
    network, _ = capture(module, (torch.randn(2, 4), torch.randn(2, 4), torch.randn(2, 7)))
    assert names(network) == ["left", "right", "unused", "output", "fc", "output_2"]
    assert network.outputs == ("output", "fc", "output_2", "right")


def test_preprocessing_is_part_of_the_network():
    preprocessing = Preprocessing((1.0, 2.0, 3.0), (4.0, 5.0, 6.0), 256, 224)
    network, _ = capture(nn.Conv2d(3, 1, 1), torch.randn(2, 3, 4, 4), preprocessing=preprocessing)
    assert network.preprocessing == preprocessing


def test_an_example_of_one_image_is_enough():
    network, _ = capture(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2)), torch.randn(1, 3, 4, 4))
    assert network.nodes[-1].shape == (2,)


def test_a_bare_squeeze_is_taken_for_what_it_does_to_batches():
    class Squeeze(nn.Module):
        def forward(self, x):
            return x.mean((2, 3), keepdim=True).squeeze()

    network, _ = capture(Squeeze(), torch.randn(1, 3, 4, 4))
    assert network.nodes[-1].shape == (3,)


def test_the_module_and_the_example_stay_as_they_are():
    module = nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).train()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    example = torch.randn(2, 3, 5, 5)
    kept = example.clone()
    capture(module, example)
    assert module.training
    assert all(parameter.requires_grad for parameter in module.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())
    assert torch.equal(example, kept)


def test_what_export_cannot_follow_is_traced_by_fx(monkeypatch, captured_equally):
    class Loud(nn.Module):
        """Calls into a library that export's fake tensors break, but only outside symbolic tracing."""

        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)
            self.last = None

        def forward(self, x):
            if not isinstance(x, torch.fx.Proxy) and torch.compiler.is_exporting():
                raise RuntimeError("not under export")
            return torch.relu(self.conv(x))

    network = captured_equally(Loud(), (3, 5, 5))
    assert names(network) == ["x", "conv"]
