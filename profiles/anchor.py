"""The anchor: one fixed int8 network whose latency tells how fast the machine is just now.

It is part of the kernels' definition of speed: changing it makes the anchors of stored profiles incomparable, so change
it only together with the version of device profiles.
"""

from __future__ import annotations

from functools import cache

from bitplan.network import RELU, Conv2d, Input, Linear, Mean, Network, Node
from bitplan.profiles.device import Latency
from bitplan.profiles.executor import Executor, Load, load_runtime
from bitplan.profiles.foreground import foreground
from bitplan.profiles.samples import summary, without_gaps
from bitplan.profiles.stand_in import stand_in_artifact, stand_in_input
from bitplan.variant import Variant

RUNS = 200


@cache
def anchor_network() -> Network:
    """Three convolutions of 64 channels on 28 x 28 pixels and a classifier: 61 million multiply-adds."""
    same = Conv2d((3, 3), padding=(1, 1, 1, 1), activation=RELU)
    image = (64, 28, 28)
    return Network(
        (
            Node("image", Input(), (), (16, 28, 28)),
            Node("first", same, ("image",), image),
            Node("second", same, ("first",), image),
            Node("third", same, ("second",), image),
            Node("mean", Mean(), ("third",), (64,)),
            Node("head", Linear(), ("mean",), (128,)),
        ),
        ("head",),
    )


@cache
def anchor_artifact() -> bytes:
    network = anchor_network()
    return stand_in_artifact(network, {layer.name: Variant("int8") for layer in network.layers})


class Anchor:
    """The loaded anchor, on one thread."""

    def __init__(self, load: Load = load_runtime) -> None:
        self.executor: Executor = load(anchor_artifact(), 1)
        self.inputs = stand_in_input(anchor_network())

    def time(self, runs: int) -> list[float]:
        """Seconds of `runs` runs after one that is not counted."""
        return [float(total) for total in self.executor.time_steps(self.inputs, runs + 1)[1:].sum(1)]

    def measure(self, runs: int = RUNS) -> Latency:
        """Quantiles over `runs` runs, warmed up."""
        with foreground():
            self.time(runs // 4)
            return summary(without_gaps(self.time(runs)))


def measure_anchor(runs: int = RUNS, load: Load = load_runtime) -> Latency:
    """The anchor's latency now; a profile's `drift` compares it with the time of measuring."""
    return Anchor(load).measure(runs)
