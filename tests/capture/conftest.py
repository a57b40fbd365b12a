"""Captures a module and compares the network with it on fresh inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from bitplan.capture import capture
from bitplan.network import Network
from bitplan.simulate import Simulator

Check = Callable[..., Network]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def captured_equally() -> Check:
    """check(module, *shapes) captures on random inputs [2, *shape] and asserts agreement on five others."""

    def check(module: nn.Module, *shapes: tuple[int, ...]) -> Network:
        training = module.training
        network, weights = capture(module, tuple(torch.randn(2, *shape) for shape in shapes))
        assert module.training == training, "capture must not touch the module"
        inputs = [torch.randn(5, *shape) for shape in shapes]
        found = Simulator(network, weights).outputs(
            {node.name: x for node, x in zip(network.inputs, inputs, strict=True)}
        )
        with torch.no_grad():
            expected = module.eval()(*(x.clone() for x in inputs))
        expected = [expected] if isinstance(expected, Tensor) else list(expected)
        assert len(found) == len(expected)
        for a, b in zip(found.values(), expected, strict=True):
            assert a.shape == b.shape
            assert (a - b).abs().max() <= 1e-4 * b.abs().max()
        assert set(weights) == {
            f"{node.name}.{kind}"
            for node in network
            for kind in {
                "Conv2d": ("weight", "bias"),
                "Linear": ("weight", "bias"),
                "ScaleShift": ("scale", "shift"),
            }.get(type(node.op).__name__, ())
        }
        return network

    return check


def randomised(module: nn.Module) -> nn.Module:
    """Batch norms as after training: nothing is zero or one."""
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            for tensor in (part.weight, part.bias, part.running_mean, part.running_var):
                if tensor is not None:
                    nn.init.uniform_(tensor, 0.5, 1.5)
    return module


@pytest.fixture(scope="session")
def randomise() -> Callable[[nn.Module], nn.Module]:
    return randomised
