"""The anchor: one fixed int8 network whose latency tells how fast the machine is just now.

Changing it makes the anchors of stored profiles incomparable: change it only together with the version of device
profiles.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from bitplan.network import RELU, Conv2d, Input, Linear, Mean, Network, Node
from bitplan.profiles.device import Latency
from bitplan.profiles.executor import Executor, Load, load_runtime
from bitplan.profiles.foreground import foreground
from bitplan.profiles.samples import calmer_half, summary, without_gaps
from bitplan.profiles.stand_in import stand_in_artifact, stand_in_input
from bitplan.variant import Variant

RUNS = 200
VISIT_RUNS = 5


@cache
def anchor_network() -> Network:
    """A narrow residual block, a depthwise separable one and a wide convolution, 38 million multiply-adds: some bound
    by multiplying, some by moving data, since a busy neighbour (a hyper-thread of the same core, say) slows the former
    by a sixth and the latter by a half."""
    image = (64, 28, 28)
    nodes = (
        Node("image", Input(), (), (3, 56, 56)),
        Node("stem", _convolution(3, stride=2), ("image",), (16, 28, 28)),
        Node("narrow", _convolution(3), ("stem", "stem"), (16, 28, 28)),
        Node("expand", _convolution(1), ("narrow",), (96, 28, 28)),
        Node("depthwise", _convolution(3, groups=96), ("expand",), (96, 28, 28)),
        Node("project", _convolution(1), ("depthwise",), image),
        Node("wide", _convolution(3), ("project",), image),
        Node("mean", Mean(), ("wide",), (64,)),
        Node("head", Linear(), ("mean",), (128,)),
    )
    return Network(nodes, ("head",))


def _convolution(kernel: int, stride: int = 1, groups: int = 1) -> Conv2d:
    half = kernel // 2
    return Conv2d((kernel, kernel), (stride, stride), (half, half, half, half), groups=groups, activation=RELU)


@cache
def anchor_artifact() -> bytes:
    network = anchor_network()
    return stand_in_artifact(network, {layer.name: Variant("int8") for layer in network.layers})


class Anchor:
    """The loaded anchor, on one thread."""

    def __init__(self, load: Load = load_runtime) -> None:
        self.executor: Executor = load(anchor_artifact(), 1)
        self.inputs = stand_in_input(anchor_network())

    def time(self, runs: int = VISIT_RUNS) -> list[float]:
        """Seconds of `runs` runs after one that is not counted."""
        return [float(total) for total in self.executor.time_steps(self.inputs, runs + 1)[1:].sum(1)]

    def measure(self, runs: int = RUNS) -> Latency:
        """Quantiles over at least `runs` runs in the calmer half of twice as many, warmed up."""
        with foreground():
            self.time(runs // 4)
            visits = [self.time() for _ in range(2 * -(-runs // VISIT_RUNS))]
        return calm_level(visits)


def calm_level(visits: Sequence[Sequence[float]]) -> Latency:
    """The anchor's latency over the calmer half of its visits. It is the same selection wherever the anchor is timed, so
    that what it adds to the bias towards fast runs cancels in ratios."""
    return summary(without_gaps([seconds for visit in calmer_half(visits) for seconds in visits[visit]]))


def measure_anchor(runs: int = RUNS, load: Load = load_runtime) -> Latency:
    """The anchor's latency now; a profile's `drift` compares it with the time of measuring."""
    return Anchor(load).measure(runs)
