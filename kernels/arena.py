"""Places the values of a network in one arena so that values alive at the same time never overlap."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from bitplan.formats import Formats
from bitplan.network import Network
from bitplan.variant import F32, U8

ALIGNMENT = 64
BYTES = {F32: 4, U8: 1}


@dataclass(frozen=True, slots=True)
class Arena:
    """`offsets[value, format]` and the total `size`, in bytes of one image."""

    offsets: Mapping[tuple[str, str], int]
    size: int


def value_bytes(shape: tuple[int, ...], form: str) -> int:
    """Bytes of one image's value, filled up to a multiple of 64."""
    return -(-prod(shape) * BYTES[form] // ALIGNMENT) * ALIGNMENT


def lifetimes(network: Network) -> dict[str, tuple[int, int]]:
    """First and last step (node number) at which each value is needed; outputs live to the end."""
    last = {name: len(network.nodes) for name in network.outputs}
    first = {}
    for step, node in enumerate(network):
        first[node.name] = step
        last.setdefault(node.name, step)
        for name in node.inputs:
            last[name] = max(last.get(name, step), step)
    return {name: (first[name], last[name]) for name in first}


def plan_arena(network: Network, formats: Formats) -> Arena:
    """Greedy by size: the largest value first, each at the lowest offset free during its life."""
    alive = lifetimes(network)
    blocks = [
        (value_bytes(node.shape, form), node.name, form) for node in network for form in sorted(formats.kept[node.name])
    ]
    placed: list[tuple[int, int, tuple[int, int]]] = []
    offsets: dict[tuple[str, str], int] = {}
    for size, name, form in sorted(blocks, key=lambda block: (-block[0], alive[block[1]][0], block[1:])):
        start, end = alive[name]
        offset = 0
        for other, other_size, (other_start, other_end) in sorted(placed):
            if other_start <= end and start <= other_end:
                if offset + size <= other:
                    break
                offset = max(offset, other + other_size)
        offsets[name, form] = offset
        placed.append((offset, size, (start, end)))
    return Arena(offsets, max((offset + size for offset, size, _ in placed), default=0))


def peak_bytes(network: Network, formats: Formats) -> int:
    """The largest sum of live values over all steps: no placement can be smaller."""
    alive = lifetimes(network)
    sizes = {n.name: sum(value_bytes(n.shape, form) for form in formats.kept[n.name]) for n in network}
    steps = range(len(network.nodes))
    return max(sum(sizes[name] for name, (first, last) in alive.items() if first <= step <= last) for step in steps)
