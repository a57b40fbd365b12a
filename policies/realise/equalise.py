"""Channels of activations brought nearer to one range, their readers' columns taking the difference.

Where f(x / s) = f(x) / s between two layers, a factor on a channel can move from the one to the other (Nagel et al.,
arXiv 1906.04721, section 4.1). Weights have a scale per output channel, so that the rows of the layer before gain nothing by it;
what differs is the range of each channel of the value in between, which has one scale for all, and the balance of the
columns that read it. So the peak of each channel on the calibration images stands here for the row's largest weight, as in
SmoothQuant (arXiv 2211.10438, section 4), and one pass over the values is enough: a factor changes no other value's peaks.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from math import inf

import numpy as np
from numpy.typing import NDArray

from bitplan.network import AveragePool, Conv2d, Linear, MaxPool, Mean, Network, Node, Weights
from bitplan.policies.realise.front import Images, count_images, default_batch, slices, take
from bitplan.simulate import Simulator

BY_CHANNEL = (AveragePool, MaxPool, Mean)
"""Operations that may stand between two layers: a positive factor on a channel passes through."""

LARGEST = 16.0
"""Of a factor, either way: beyond it peaks are those of a few odd pixels."""

CLEAR = 0.9
"""Channels whose peaks come nearer to an activation's upper bound than this share, before or after, keep off it."""


def equalised(
    network: Network, weights: Weights, images: Images, among: Collection[str]
) -> dict[str, NDArray[np.float32]]:
    """Weights of a network with the same outputs, but for rounding and for values of other images that an activation would
    cut off. Factors move only between layers named in `among`; all other arrays are the same objects."""
    found = dict(weights)
    pairs = [pair for pair in _pairs(network) if {node.name for node in pair} <= set(among)]
    peaks = _peaks(Simulator(network, weights), images, [before.name for before, _ in pairs])
    for before, after in pairs:
        factor = factors(network, before, after, found, peaks[before.name])
        shape = (-1, *[1] * (found[f"{before.name}.weight"].ndim - 1))
        found[f"{before.name}.weight"] = (found[f"{before.name}.weight"] / factor.reshape(shape)).astype(np.float32)
        found[f"{before.name}.bias"] = (found[f"{before.name}.bias"] / factor).astype(np.float32)
        columns = _columns(network, after, found) * factor.reshape(network.weight_shape(after).groups, 1, -1, 1)
        found[f"{after.name}.weight"] = columns.reshape(found[f"{after.name}.weight"].shape).astype(np.float32)
    return found


def factors(
    network: Network, before: Node, after: Node, weights: Weights, peak: NDArray[np.float64]
) -> NDArray[np.float64]:
    """What each channel [C] of the value between two layers is divided by: the root of its peak over the largest weight that
    reads it. A depthwise reader's columns have scales of their own and take all of the peak."""
    largest = np.abs(_columns(network, after, weights)).max((1, 3)).reshape(-1).astype(np.float64)
    alive = (peak > 0) & (largest > 0)
    if not alive.any():
        return np.ones_like(peak)
    ratio = np.where(alive, peak, 1.0)
    if not network.weight_shape(after).depthwise:
        ratio = np.sqrt(ratio / np.where(alive, largest, 1.0))
    ratio = np.clip(ratio / np.exp(np.log(ratio[alive]).mean()), 1 / LARGEST, LARGEST)
    high = CLEAR * before.activation.high
    if high < inf:
        ratio = np.where(peak < high, np.maximum(ratio, peak / high), 1.0)
    return np.where(alive, ratio, 1.0)


def _pairs(network: Network) -> Iterator[tuple[Node, Node]]:
    """Layers, and the only one that reads each, where factors can move between them."""
    for before in network.layers:
        activation = before.activation
        if len(before.inputs) > 1 or before.name in network.outputs or (activation and activation.kind != "clamp"):
            continue
        if activation and (activation.low not in (0.0, -inf) or activation.high <= 0):
            continue
        value = after = before
        while len(readers := network.readers[value.name]) == 1 and value.name not in network.outputs:
            after = readers[0]
            if not isinstance(after.op, BY_CHANNEL):
                break
            value = after
        if after.inputs[:1] != (value.name,) or value.name in after.inputs[1:]:
            continue
        # Elsewhere a linear layer reads another axis than the channels.
        same = isinstance(before.op, Linear) or len(value.shape) == 1
        if isinstance(after.op, Conv2d) or (isinstance(after.op, Linear) and same):
            yield before, after


def _columns(network: Network, node: Node, weights: Weights) -> NDArray[np.float32]:
    """A layer's weight as [groups, out / groups, in / groups, kernel]."""
    shape = network.weight_shape(node)
    weight = np.asarray(weights[f"{node.name}.weight"], np.float32)
    return weight.reshape(shape.groups, shape.out_channels // shape.groups, shape.in_channels // shape.groups, -1)


def _peaks(simulator: Simulator, images: Images, names: list[str]) -> dict[str, NDArray[np.float64]]:
    """The largest magnitude of each channel [C] of these values."""
    found: dict[str, NDArray[np.float64]] = {}
    for part in slices(0, count_images(images), default_batch(simulator.network)):
        for name, value in simulator.values(take(images, part), keep=names).items():
            rows = value.flatten(2).abs().amax((0, 2)) if value.ndim == 4 else value.abs().flatten(0, -2).amax(0)
            peak = rows.double().numpy()
            found[name] = np.maximum(found.get(name, peak), peak)
    return found
