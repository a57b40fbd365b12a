"""bitplan's own runtime as an engine: artifacts with random weights of the usual distribution."""

from __future__ import annotations

from itertools import cycle, pairwise
from typing import Any

import numpy as np

from bitplan.encodings import encoding_of
from bitplan.errors import BitplanError
from bitplan.kernels import Runtime
from bitplan.kernels.artifact import pack_artifact
from bitplan.kernels.runtime import isa_levels
from bitplan.network import RELU, Conv2d, Input, Linear, Network, Node, Preprocessing
from bitplan.profiles.stand_in import stand_in_input, stand_in_layer, stand_in_ranges
from bitplan.simulate import Simulator
from bitplan.variant import FLOAT32, Variant

from .captured import captured
from .check import relative_error
from .engine import Subject, Unavailable
from .workloads import ColdLinear, ConvChain, WholeNetwork, Workload

INSIDE = "Runtime.time_runs: raw uint8 input to float32 output, in C++"


def load(workload: Workload, variant: str, threads: int, level: str) -> Subject:
    isa = isa_levels()[0] if level == "native" else level
    if isa not in isa_levels():
        raise Unavailable(f"this machine has no kernels of level {isa!r}; it has {', '.join(isa_levels())}")
    if isinstance(workload, ColdLinear):
        return _cold(workload, variant, threads, isa)
    network = network_of(workload)
    variant, _, kernel = variant.partition("/")
    made = Made(network, policy(network, variant), kernel)
    runtime = Runtime.from_bytes(made.artifact, threads=threads, isa=isa)
    inputs = stand_in_input(network)

    def burst(runs: int) -> list[float]:
        return [float(seconds) for seconds in runtime.time_runs(inputs, runs)]

    def error() -> float:
        return relative_error(runtime(inputs)[network.outputs[0]], made.expected(inputs))

    steps = np.quantile(runtime.time_steps(inputs, 5), 0.1, 0)
    about = {
        "inside": INSIDE,
        "isa": runtime.isa,
        "artifact_bytes": len(made.artifact),
        "steps_ms": {name: 1e3 * float(s) for name, s in zip(runtime.steps, steps, strict=True)},
    }
    return Subject(burst, error, TOLERANCE, about)


TOLERANCE = 0.02
"""Runtime and simulation round alike but for float32 sums in another order; a code that falls the other way changes
what follows it by a step of its 8 bits."""


class Made:
    """A network with random weights under a policy: its artifact, and what that should give."""

    def __init__(self, network: Network, variants: dict[str, Variant], kernel: str = "") -> None:
        """`kernel`: the compute kernel of all layers, else the usual ones.
        Raises Unavailable where this version has no such variant or kernel."""
        rng = np.random.default_rng(0)
        kernels: dict[str, Any] = {"kernels": dict.fromkeys(variants, kernel)} if kernel else {}
        self.network = network
        try:
            self.layers = {
                node.name: stand_in_layer(network.weight_shape(node), variants[node.name], rng)
                for node in network.layers
            }
            self.ranges = stand_in_ranges(network)
            self.artifact = pack_artifact(network, {}, self.layers, self.ranges, **kernels)
        except (BitplanError, ValueError, KeyError, TypeError) as error:
            raise Unavailable(f"this version cannot make {sorted(set(map(str, variants.values())))}: {error}") from None

    def expected(self, inputs: Any) -> Any:
        weights = {f"{name}.weight": _as_given(self.network, name, layer.weight) for name, layer in self.layers.items()}
        weights |= {f"{name}.bias": layer.bias for name, layer in self.layers.items()}
        encoded = {name: layer for name, layer in self.layers.items() if layer.variant != FLOAT32}
        output = self.network.outputs[0]
        return Simulator(self.network, weights).outputs(inputs, encoded, self.ranges)[output].numpy()


def _as_given(network: Network, name: str, weight: Any) -> Any:
    """Simulation takes the weights of linear layers as [out, in]."""
    return weight.reshape(len(weight), -1) if isinstance(network.by_name[name].op, Linear) else weight


def parse(variant: str) -> Variant:
    """Raises Unavailable for what this version of bitplan does not know."""
    try:
        parsed = Variant.parse(variant)
        encoding_of(parsed)
    except (ValueError, BitplanError) as error:
        raise Unavailable(f"this version of bitplan does not know {variant!r}: {error}") from None
    return parsed


def policy(network: Network, variant: str) -> dict[str, Variant]:
    """The variant for every layer; `ternary+ends:int8` takes int8 for the first and the last one."""
    inner, _, ends = variant.partition("+ends:")
    chosen, at_ends = parse(inner), parse(ends or inner)
    layers = network.layers
    variants = {node.name: at_ends if node in (layers[0], layers[-1]) else chosen for node in layers}
    return {
        node.name: variants[node.name]
        if encoding_of(variants[node.name]).supports(network.weight_shape(node))
        else FLOAT32
        for node in layers
    }


def network_of(workload: Workload) -> Network:
    match workload:
        case ConvChain(channels, size, depth, kernel):
            shape = (channels, size, size)
            operation = Conv2d((kernel, kernel), (1, 1), (kernel // 2,) * 4, activation=RELU)
            names = ["x", *(f"conv{i}" for i in range(depth))]
            nodes = [Node("x", Input(), (), shape)]
            nodes += [Node(name, operation, (before,), shape) for before, name in pairwise(names)]
            return Network(tuple(nodes), (names[-1],), Preprocessing((128.0,) * channels, (64.0,) * channels))
        case WholeNetwork():
            return captured(workload)[0]
        case _:
            raise Unavailable(f"no network for {workload}")


def _cold(workload: ColdLinear, variant: str, threads: int, isa: str) -> Subject:
    shape = (workload.features,)
    network = Network((Node("x", Input(), (), shape), Node("fc0", Linear(), ("x",), shape)), ("fc0",))
    variant, _, kernel = variant.partition("/")
    first = Made(network, policy(network, variant), kernel)
    inputs = stand_in_input(network)
    runtimes = [
        Runtime.from_bytes(first.artifact, threads=threads, isa=isa) for _ in range(workload.copies)
    ]  # each holds its own copy of the weights
    turn = cycle(runtimes)

    def burst(runs: int) -> list[float]:
        return [float(next(turn).time_runs(inputs, 1)[0]) for _ in range(runs)]

    def error() -> float:
        return relative_error(runtimes[0](inputs)[network.outputs[0]], first.expected(inputs))

    about = {"inside": INSIDE + ", one run per copy", "isa": isa, "copies": workload.copies}
    return Subject(burst, error, TOLERANCE, about)
