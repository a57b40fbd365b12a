"""A network of typical layer shapes: timed once, its steps tell what layers of other networks cost about.

A device profile that is to travel cannot know which networks will be planned with it. The survey holds chains of layers
as they stand in convolutional networks: wide and shallow where images are large, narrow and deep where they are small,
with kernels of 1, 3 and 5, strides, depthwise layers, odd numbers of channels, and linear layers. Shapes lie between
those of small and large networks, so that most others are interpolated (`estimates.py`) rather than extrapolated.
"""

from __future__ import annotations

from functools import cache

from bitplan.network import RELU, RELU6, Activation, Conv2d, Input, Linear, Mean, Network, Node

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
    (512, 7, "512x3 2048x1 512x1 256x1 1024x1 d3 256x3/2", RELU),
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
    (2048, 512, 4096, 120),
    (784, 300, 128, 384, 1536, 384),
    (400, 120, 84, 32),
    (3136, 128, 768, 768, 48),
)
"""Chains of linear layers by their features."""


@cache
def survey_network() -> Network:
    """All chains side by side, each with an input of its own and a classifier behind it."""
    nodes: list[Node] = []
    outputs: list[str] = []
    for number, (channels, side, chain, activation) in enumerate(CHAINS):
        nodes.append(Node(f"image{number}", Input(), (), (channels, side, side)))
        for place, text in enumerate(chain.split()):
            nodes.append(_convolution(f"conv{number}.{place}", nodes[-1], text, activation))
        nodes.append(Node(f"mean{number}", Mean(), (nodes[-1].name,), nodes[-1].shape[:1]))
        nodes.append(Node(f"classifier{number}", Linear(), (nodes[-1].name,), (10 * (1 + number),)))
        outputs.append(nodes[-1].name)
    for number, (first, *others) in enumerate(ROWS):
        nodes.append(Node(f"row{number}", Input(), (), (first,)))
        for place, features in enumerate(others):
            nodes.append(Node(f"linear{number}.{place}", Linear(RELU), (nodes[-1].name,), (features,)))
        outputs.append(nodes[-1].name)
    return Network(tuple(nodes), tuple(outputs))


def _convolution(name: str, source: Node, text: str, activation: Activation) -> Node:
    channels, side, _ = source.shape
    layer, _, stride = text.partition("/")
    depthwise = layer.startswith(DEPTHWISE)
    width, size = (channels, int(layer[1:])) if depthwise else map(int, layer.split("x"))
    step, half = int(stride or 1), size // 2
    left = (side + 2 * half - size) // step + 1
    op = Conv2d((size, size), (step, step), (half,) * 4, groups=channels if depthwise else 1, activation=activation)
    return Node(name, op, (source.name,), (width, left, left))
