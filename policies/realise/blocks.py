"""The blocks of a network: what is trained together when rounding is learned (block_rounding.py)."""

from __future__ import annotations

from dataclasses import dataclass

from bitplan.network import Conv2d, Input, Linear
from bitplan.simulate import Simulator

RUN = 3
"""Layers in a row, without a branch among them, that make one block at most."""


@dataclass(frozen=True)
class Block:
    """nodes[start:stop] of a network; `layers` are those with weights, `outputs` what later nodes or the caller read of it."""

    start: int
    stop: int
    layers: tuple[str, ...]
    outputs: tuple[str, ...]


def blocks_of(simulator: Simulator) -> tuple[Block, ...]:
    """Blocks that cover all nodes but the leading inputs, in order.

    A network is cut where a single value passes from the nodes before to those behind: around a residual block, which
    stays whole (BRECQ, arXiv 2102.05426, section 3.2), and between the layers of a chain, of which up to RUN are taken
    together. Where branches never join, that is one block to the end.
    """
    nodes = simulator.network.nodes
    first = next((index for index, node in enumerate(nodes) if not isinstance(node.op, Input)), len(nodes))
    cuts = [stop for stop in range(first + 1, len(nodes)) if len(simulator.needed(stop)) == 1] + [len(nodes)]
    pieces: list[list[int]] = []  # start, stop, layers, most layers of a piece between two cuts
    start = first
    for stop in cuts:
        count = sum(isinstance(node.op, Conv2d | Linear) for node in nodes[start:stop])
        last = pieces[-1] if pieces else None
        if last and (not count or (max(count, last[3]) == 1 and last[2] < RUN)):
            last[1:] = [stop, last[2] + count, max(count, last[3])]
        else:
            pieces.append([start, stop, count, count])
        start = stop
    return tuple(_block(simulator, start, stop) for start, stop, _, _ in pieces if stop > start)


def _block(simulator: Simulator, start: int, stop: int) -> Block:
    inside = simulator.network.nodes[start:stop]
    read = set(simulator.needed(stop))
    return Block(
        start,
        stop,
        tuple(node.name for node in inside if isinstance(node.op, Conv2d | Linear)),
        tuple(node.name for node in inside if node.name in read),
    )
