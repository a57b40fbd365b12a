"""The values of a network for many images at once, at one point of the data flow: what is advanced node by node."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import prod

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bitplan.encodings import EncodedLayer
from bitplan.errors import DataError
from bitplan.formats import Formats, Ranges
from bitplan.network import Network, Node
from bitplan.simulate import Simulator, fake_quantise, first_range, input_formats, range_of
from bitplan.variant import F32

Images = NDArray[np.generic] | Mapping[str, NDArray[np.generic]]
"""A raw array [N, ...] (uint8 or float32), or several by the names of the network's inputs."""

BATCH_BYTES = 1 << 24
"""Batches are made so large that the network's largest value has about this size: calls are long enough for their
overhead not to matter, and blocks small enough for the allocator to use them again (glibc returns 32 MB and more to
the system each time, which costs a page fault for every 4 kB)."""


def count_images(images: Images) -> int:
    """The number of images. Raises DataError where there is none or several inputs disagree."""
    counts = {len(array) for array in (images.values() if isinstance(images, Mapping) else [images])}
    if len(counts) != 1 or not min(counts):
        raise DataError(
            f"there must be one image or more, as many for every input, not {sorted(counts)}"
            "; give more, or the same number for each input"
        )
    return counts.pop()


def take(images: Images, part: slice) -> Images:
    """A slice of the images."""
    return {name: array[part] for name, array in images.items()} if isinstance(images, Mapping) else images[part]


def slices(start: int, stop: int, size: int) -> list[slice]:
    """Consecutive slices of at most `size`."""
    return [slice(first, min(first + size, stop)) for first in range(start, stop, size)]


def default_batch(network: Network) -> int:
    """Images per batch that make good use of the caches (see BATCH_BYTES)."""
    largest = max(4 * prod(node.shape) for node in network)
    return max(1, min(256, BATCH_BYTES // largest))


def peak_bytes(simulator: Simulator) -> int:
    """Bytes per image of the values held at the worst moment of a walk through the network in float32."""
    nodes = simulator.network.nodes
    sizes = {node.name: 4 * prod(node.shape) for node in nodes}
    return max(sizes[n.name] + sum(sizes[name] for name in simulator.needed(i)) for i, n in enumerate(nodes))


class Front:
    """The values made before `nodes[position]` that are still needed, one dictionary for each batch of images.

    With `ranges` and `formats`, nodes read what their formats leave of a value, as in the simulation; without, all is
    float32.
    """

    def __init__(self, simulator: Simulator, batches: Sequence[Mapping[str, Tensor]], position: int = 0) -> None:
        self.simulator = simulator
        self.batches = [dict(values) for values in batches]
        self.position = position

    @classmethod
    def of_images(cls, simulator: Simulator, images: Images, batch: int) -> Front:
        """The front behind the network's inputs."""
        names = [node.name for node in simulator.network.inputs]
        parts = slices(0, count_images(images), batch)
        return cls(simulator, [simulator.values(take(images, part), keep=names) for part in parts])

    def fork(self) -> Front:
        """A second front at the same point; the values themselves are shared."""
        return Front(self.simulator, self.batches, self.position)

    def advance(
        self,
        stop: int,
        layers: Mapping[str, EncodedLayer] | None = None,
        ranges: Ranges | None = None,
        formats: Formats | None = None,
    ) -> None:
        """Executes nodes[position:stop] for every batch and forgets what nobody will read."""
        network = self.simulator.network
        nodes = network.nodes
        while self.position < stop:
            node = nodes[self.position]
            self.position += 1
            # Inputs lie in the front from the beginning, though their nodes may come later.
            needed = {*self.simulator.needed(self.position), *(n.name for n in nodes[self.position :] if not n.inputs)}
            held = None if not (node.inputs and formats) else first_range(network, node, formats, ranges or {})
            for values in self.batches:
                if node.inputs:
                    inputs = read(network, node, values, ranges, formats)
                    with torch.inference_mode():
                        values[node.name] = self.simulator.node(node, inputs, (layers or {}).get(node.name), held)
                    del inputs
                for name in values.keys() - needed:
                    del values[name]

    def inputs(
        self, node: Node, ranges: Ranges | None = None, formats: Formats | None = None
    ) -> Iterator[list[Tensor]]:
        """The node's inputs, batch by batch, as it reads them."""
        for values in self.batches:
            yield read(self.simulator.network, node, values, ranges, formats)


def read(
    network: Network, node: Node, values: Mapping[str, Tensor], ranges: Ranges | None, formats: Formats | None
) -> list[Tensor]:
    """A node's inputs in the formats in which it reads them."""
    if formats is None:
        return [values[name] for name in node.inputs]
    return [
        values[name]
        if form == F32
        else fake_quantise(values[name], range_of(network, name, form, formats, ranges or {}), form)
        for name, form in zip(node.inputs, input_formats(node, formats), strict=True)
    ]
