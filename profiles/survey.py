"""Networks of typical layer shapes: timed once, their steps tell what layers of other networks cost about.

A device profile that is to travel cannot know which networks will be planned with it. The survey holds chains of layers
as they stand in convolutional networks: wide and shallow where images are large, narrow and deep where they are small,
with kernels of 1, 3 and 5, strides, depthwise layers, odd numbers of channels, and linear layers. Shapes lie between
those of small and large networks, so that most others are interpolated (`estimates.py`) rather than extrapolated. Besides
them it holds layers drawn at random, which tell kernels' odd sizes from their usual ones: numbers of channels and pixels
that no panel, block or instruction divides.

The layers are spread over several networks, each about as large as one that is planned for CPUs, because weights that
come from memory at every run take longer than those that stay in the caches.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np

from bitplan.network import (
    RELU,
    RELU6,
    Activation,
    Add,
    AveragePool,
    Concat,
    Conv2d,
    Input,
    Linear,
    MaxPool,
    Mean,
    Network,
    Node,
)

SILU = Activation("silu")
DEPTHWISE = "d"
"""In a chain: a depthwise layer, as `d3` (kernel 3) or `d3/2` (stride 2)."""

CHAINS: tuple[tuple[int, int, str, Activation], ...] = (
    (3, 112, "16x3/2 d3 24x1 d3/2 64x1 32x1 96x1 d5/2 40x1 160x1 d3 64x1", RELU6),
    (3, 96, "32x3/2 32x3 16x1 48x3/2 80x3 24x1 144x1 d3 24x3/2", RELU),
    (3, 64, "24x5/2 64x3 64x3/2 128x3 32x1 192x1 d3 48x1 128x3/2 128x3", RELU),
    (3, 32, "16x3 16x3 32x3/2 32x3 64x3/2 64x3 96x3 256x1 d3 40x1", RELU),
    (1, 28, "16x3 20x3 40x3/2 12x3 120x1 d5 56x3/2 56x3", RELU),
    (64, 56, "64x3 128x1/2 32x3 256x1 64x1 64x3/2", RELU),
    (128, 28, "128x3 256x3/2 512x1 d3 128x1 384x1 d5 96x1", RELU),
    (256, 14, "256x3 64x1 384x1 d3 96x3 576x1 d3/2 160x1 512x3 128x1", RELU),
    (320, 7, "1280x1 192x1 960x1 d3 112x1 448x1 d5 320x1 192x3 192x3", RELU),
    (8, 48, "8x3 12x1 d3 8x3/2 20x5 10x1 48x1 d3/2 12x1 28x3", RELU),
    (3, 80, "32x3/2 d3 16x1 96x1 d3/2 27x1 162x1 d3 36x1 216x1 d3/2 54x1", SILU),
    (48, 28, "288x1 d5 72x1 432x1 d3/2 88x1 528x1 d3 120x1 720x1 d5/2 208x1", SILU),
    (3, 72, "40x7/2 40x1 40x3 80x3/2 80x1 160x3/2 160x3 320x3/2 320x1", RELU),
    (24, 56, "24x3 d5 72x1 24x1 d3/2 144x1 32x3 d3 16x3 72x3/2", RELU),
    (512, 7, "256x3 1024x1 512x1 256x1 1024x1 d3 256x3/2", RELU),
    (100, 20, "100x3 36x1 200x1 d3/2 50x1 150x3 60x5 30x1", RELU),
    (192, 16, "192x1 64x3 96x5 224x1 d3 80x3/2 320x1 176x3", RELU),
    (16, 40, "32x1 d3/2 64x1 d3 64x3/2 128x1 d3/2 256x1 d3 64x3", RELU6),
)
"""Channels and height of an image, the layers behind it (output channels x kernel, / stride), and their activation."""

ROWS: tuple[tuple[int, ...], ...] = (
    (512, 1000, 200, 1024, 96),
    (1280, 100, 300),
    (64, 10, 160, 640, 24),
    (256, 256, 64, 512),
    (2048, 512, 1024, 120),
    (784, 300, 128, 384, 1536, 384),
    (400, 120, 84, 32),
    (3136, 128, 768, 768, 48),
)
"""Chains of linear layers by their features."""


KNOTS: tuple[tuple[int, int], ...] = (
    *((8, 56), (16, 112), (16, 32), (24, 28), (32, 56), (40, 14), (48, 48), (64, 56)),
    *((64, 16), (96, 28), (128, 28), (128, 8), (192, 14), (256, 14), (320, 8), (512, 6)),
)
"""Channels and height of values that residuals, pools, concatenations and conversions between formats work on."""

DRAWN = 80
"""Layers drawn at random, each behind another one."""
ROWS_DRAWN, GROUPED_DRAWN = 0.25, 0.25
"""Shares of them that are linear layers, and of the others that are depthwise ones."""
SEED = 2026
MOST_PRODUCTS = 1e8
"""Multiply-adds of a drawn layer; larger ones are drawn again."""
MOST_WEIGHTS = 2_000_000
"""Weights of one network, unless a single chain has more."""

Chain = list[Node]


@cache
def survey_networks() -> tuple[Network, ...]:
    """All chains, each with an input of its own, mixed and side by side in as few networks as MOST_WEIGHTS allows: what
    runs before a layer decides what is left in the caches for it."""
    chains, networks = list(_chains()), []
    together: list[Chain] = []
    for index in np.random.default_rng(SEED).permutation(len(chains)):
        if together and _weights([*together, chains[index]]) > MOST_WEIGHTS:
            networks.append(_side_by_side(together))
            together = []
        together.append(chains[index])
    return (*networks, _side_by_side(together))


def _chains() -> Iterator[Chain]:
    for number, (channels, side, texts, activation) in enumerate(CHAINS):
        nodes = [Node(f"image{number}", Input(), (), (channels, side, side))]
        for place, text in enumerate(texts.split()):
            nodes.append(_convolution(f"conv{number}.{place}", nodes[-1], text, activation))
        yield _classified(nodes, str(number), 10 * (1 + number))
    for number, (first, *others) in enumerate(ROWS):
        nodes = [Node(f"row{number}", Input(), (), (first,))]
        for place, features in enumerate(others):
            nodes.append(Node(f"linear{number}.{place}", Linear(RELU), (nodes[-1].name,), (features,)))
        yield nodes
    for number, (channels, side) in enumerate(KNOTS):
        yield _knot(f"knot{number}", channels, side)
    random = np.random.default_rng(SEED)
    for number in range(DRAWN):
        yield _drawn(random, number)


def _knot(name: str, channels: int, side: int) -> Chain:
    """Every common operation without weights, between layers that may read and write different formats."""
    image = Node(name, Input(), (), (channels, side, side))
    first = _convolution(f"{name}.first", image, f"{channels}x1", RELU)
    second = _convolution(f"{name}.second", first, f"{channels}x1", RELU)
    total = Node(f"{name}.add", Add(RELU), (first.name, second.name), first.shape)
    half = (channels, side // 2, side // 2)
    largest = Node(f"{name}.largest", MaxPool((3, 3), (2, 2), (1, 1, 1, 1)), (total.name,), half)
    average = Node(f"{name}.average", AveragePool((2, 2), (2, 2)), (total.name,), half)
    both = Node(f"{name}.both", Concat(), (largest.name, average.name), (2 * channels, *half[1:]))
    last = _convolution(f"{name}.last", both, f"{channels}x1", RELU)
    return _classified([image, first, second, total, largest, average, both, last], f".{name}", 10)


def _drawn(random: np.random.Generator, number: int) -> Chain:
    """An input, a pointwise or linear layer, and behind it one of any kind; sizes log-uniform."""
    if random.random() < ROWS_DRAWN:
        first, inner, outer = (_size(random, 12, 2400) for _ in range(3))
        nodes = [Node(f"drawn{number}", Input(), (), (first,))]
        nodes.append(Node(f"inner{number}", Linear(RELU), (nodes[-1].name,), (inner,)))
        return [*nodes, Node(f"outer{number}", Linear(RELU), (nodes[-1].name,), (outer,))]
    while True:
        channels, inner, outer = _size(random, 3, 64), _size(random, 6, 640), _size(random, 6, 640)
        side, kernel, stride = _size(random, 4, 128), int(random.choice((1, 1, 3, 3, 5))), int(random.choice((1, 1, 2)))
        text = f"d{max(kernel, 3)}/{stride}" if random.random() < GROUPED_DRAWN else f"{outer}x{kernel}/{stride}"
        nodes = [Node(f"drawn{number}", Input(), (), (channels, side, side))]
        nodes.append(_convolution(f"inner{number}", nodes[-1], f"{inner}x1", RELU))
        nodes.append(_convolution(f"outer{number}", nodes[-1], text, RELU))
        if all(_products(node, nodes) <= MOST_PRODUCTS for node in nodes[1:]):
            return _classified(nodes, f".drawn{number}", 10)


def _size(random: np.random.Generator, least: int, most: int) -> int:
    """Log-uniform, as often any number as a multiple of 8."""
    size = float(np.exp(random.uniform(np.log(least), np.log(most))))
    step = int(random.choice((1, 8))) if size > 16 else 1
    return max(least, round(size / step) * step)


def _classified(nodes: Chain, name: str, classes: int) -> Chain:
    mean = Node(f"mean{name}", Mean(), (nodes[-1].name,), nodes[-1].shape[:1])
    return [*nodes, mean, Node(f"classifier{name}", Linear(), (mean.name,), (classes,))]


def _side_by_side(chains: list[Chain]) -> Network:
    return Network(tuple(node for chain in chains for node in chain), tuple(chain[-1].name for chain in chains))


def _weights(chains: list[Chain]) -> int:
    network = _side_by_side(chains)
    return sum(network.weight_shape(node).count for node in network.layers)


def _products(layer: Node, chain: Chain) -> int:
    """Multiply-adds of a convolution."""
    return _side_by_side([chain]).weight_shape(layer).count * layer.shape[1] * layer.shape[2]


def _convolution(name: str, source: Node, text: str, activation: Activation) -> Node:
    channels, side, _ = source.shape
    layer, _, stride = text.partition("/")
    depthwise = layer.startswith(DEPTHWISE)
    width, size = (channels, int(layer[1:])) if depthwise else map(int, layer.split("x"))
    step, half = int(stride or 1), size // 2
    left = (side + 2 * half - size) // step + 1
    op = Conv2d((size, size), (step, step), (half,) * 4, groups=channels if depthwise else 1, activation=activation)
    return Node(name, op, (source.name,), (width, left, left))
