"""What tests of profiles share: the small network under every estimator, and a chain of layers measured in a process of its
own."""

from __future__ import annotations

import runpy
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bitplan.network import Network
from bitplan.policies.realise import realise
from bitplan.profiles.estimators import ESTIMATORS
from bitplan.profiles.loss_walk import Job
from bitplan.profiles.measure_loss import measure
from bitplan.simulate import Simulator
from bitplan.variant import FLOAT32, Variant

MENU = (FLOAT32, *(Variant(name) for name in ("int8", "int3", "binary")))

CHAIN = """
import numpy as np
from bitplan.network import Input, Linear, Network, Node
from bitplan.variant import Variant
nodes = [Node("x", Input(), (), (6,))]
nodes += [Node(f"layer{i}", Linear(), (f"layer{i - 1}" if i else "x",), (6,)) for i in range(4)]
network = Network(tuple(nodes), ("layer3",))
random = np.random.default_rng(0)
weights = {f"layer{i}.weight": random.normal(size=(6, 6)).astype(np.float32) for i in range(4)}
weights |= {f"layer{i}.bias": np.zeros(6, np.float32) for i in range(4)}
images = random.normal(size=(20, 6)).astype(np.float32)
menu = {f"layer{i}": (Variant("int8"), Variant("binary")) for i in range(4)}
subject = network, weights, images, menu
"""


@dataclass(frozen=True)
class Chain:
    """Four layers with two choices each, as the arguments of `measure` (`subject`) and as the beginning of a program."""

    subject: tuple[Any, ...]

    def run(self, program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        """A program that finds `subject`, in a process of its own."""
        command = [sys.executable, "-c", CHAIN + program, *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="session")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    file: Path = tmp_path_factory.mktemp("chain") / "chain.py"
    file.write_text(CHAIN)
    return Chain(runpy.run_path(str(file))["subject"])


@pytest.fixture(scope="session")
def menu_of():
    """The same variants for every layer of a network."""

    def menu(network: Network, *variants: Variant):
        return {node.name: variants for node in network.layers}

    return menu


@pytest.fixture(scope="session")
def job_of():
    """The job of measuring these variants in every layer of an example."""

    def job(example, *variants: Variant, batch: int = 16, metric: str = "kl") -> Job:
        choices = frozenset((node.name, variant) for node in example.network.layers for variant in variants)
        return Job(example.network, example.weights, example.images, choices, metric, None, batch, 1 << 30)

    return job


@pytest.fixture(scope="session")
def logits():
    """An example's outputs with these variants, every layer recovered as it is alone."""

    def outputs(example, variants):
        layers, ranges = {}, {}
        for name, variant in variants.items():
            alone = {node.name: variant if node.name == name else FLOAT32 for node in example.network.layers}
            result = realise(example.network, example.weights, example.images, alone, batch=16)
            layers[name], ranges = result.layers[name], result.ranges
        return Simulator(example.network, example.weights).outputs(example.images, layers, ranges)["classifier"].numpy()

    return outputs


@pytest.fixture(scope="session")
def profiles(small, menu_of):
    """The small network's profile by every estimator, with the variants of MENU."""
    menu = menu_of(small.network, *MENU)
    return {
        name: measure(small.network, small.weights, small.images, menu, estimator=name, batch=16) for name in ESTIMATORS
    }
