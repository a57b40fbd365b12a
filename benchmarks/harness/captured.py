"""The networks that are timed whole, as bitplan captures them: the same graph and weights for every engine."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray

from bitplan.capture import capture
from bitplan.network import Network
from bitplan.simulate import Simulator

from .engine import Unavailable
from .workloads import WholeNetwork

TORCHVISION = ("resnet18", "mobilenet_v2")


@cache
def captured(workload: WholeNetwork) -> tuple[Network, dict[str, NDArray[np.float32]]]:
    """The graph and its weights: torchvision's networks with random weights, the others trained (BITPLAN_TEST_DATA)."""
    torch.manual_seed(0)
    if workload.name in TORCHVISION:
        import torchvision

        module = torchvision.models.get_model(workload.name, weights=None).eval()
    else:
        import networks  # benchmarks/networks.py

        if networks.data_folder() is None:
            raise Unavailable(f"{workload.name} needs BITPLAN_TEST_DATA (see CONTRIBUTING.md)")
        module, _ = getattr(networks, workload.name)()
    return capture(module, torch.randn(2, 3, workload.size, workload.size))


def images(workload: WholeNetwork, count: int) -> NDArray[np.float32]:
    return np.random.default_rng(2).standard_normal((count, 3, workload.size, workload.size), np.float32)


def network_expected(workload: WholeNetwork, x: NDArray[np.generic]) -> NDArray[np.float32]:
    """The network's output in float32, executed by torch."""
    network, weights = captured(workload)
    output: NDArray[np.float32] = Simulator(network, weights).outputs(np.asarray(x))[network.outputs[0]].numpy()
    return output
