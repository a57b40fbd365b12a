"""Places the values of a network in one arena so that values alive at the same time never overlap."""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

from bitplan.formats import Formats
from bitplan.network import Network, Shape
from bitplan.variant import BITS, F32, U8

ALIGNMENT = 64
WORD = 32
"""Channels of which a word holds one bit each."""


@dataclass(frozen=True, slots=True)
class Arena:
    """`offsets[value]`, where its formats lie one behind the other, and the total `size`, in bytes of one image."""

    offsets: Mapping[str, int]
    size: int


def value_bytes(shape: Shape, form: str) -> int:
    """Bytes of one image's value in one format, filled up to a multiple of 64. Codes below 8 bits take, for each run
    of C channels (the last axis in memory), `bits` planes of ceil(C / 32) words."""
    if form in (F32, U8):
        size = prod(shape) * BITS[form] // 8
    else:
        channels = shape[0] if len(shape) == 3 else shape[-1]
        size = prod(shape) // channels * BITS[form] * 4 * -(-channels // WORD)
    return -(-size // ALIGNMENT) * ALIGNMENT


def kept_bytes(shape: Shape, formats: Iterable[str]) -> int:
    """Bytes of one image's value in all formats that it is kept in."""
    return sum(value_bytes(shape, form) for form in formats)


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


@dataclass(frozen=True, slots=True)
class _Block:
    """A value: bytes of all its formats, and the first and last step of its life."""

    name: str
    size: int
    start: int
    end: int


ORDERS: tuple[Callable[[_Block], tuple[int, ...]], ...] = (
    lambda block: (-block.size,),
    lambda block: (-block.size * (block.end - block.start + 1),),
    lambda block: (block.start - block.end, -block.size),
    lambda block: (block.start, -block.size),
    lambda block: (-block.end, -block.size),
)
"""What comes first: large blocks, large and long-lived ones, long-lived ones, early ones, late ones."""
MOST_REPAIRS = 32


def plan_arena(network: Network, formats: Formats) -> Arena:
    """First fit: block after block at the lowest offset that is free during its life, the largest first. Where that
    leaves holes (the size exceeds `peak_bytes`), other orders are tried, and then the best of them with the block that
    ends highest moved to the front; the smallest arena wins, of equal ones the first."""
    alive = lifetimes(network)
    blocks = [_Block(node.name, kept_bytes(node.shape, formats.kept[node.name]), *alive[node.name]) for node in network]
    bound = peak_bytes(network, formats)
    best: Arena | None = None
    order: list[_Block] = []
    for precedence in ORDERS:
        candidate = sorted(blocks, key=lambda block: (*precedence(block), block.start, block.name))
        arena = _first_fit(candidate)
        if best is None or arena.size < best.size:
            best, order = arena, candidate
        if best.size <= bound:
            return best
    assert best is not None
    arena = best
    for _ in range(MOST_REPAIRS):
        offsets = arena.offsets
        highest = max(range(len(order)), key=lambda i: (offsets[order[i].name] + order[i].size, i))
        if highest == 0:
            break
        order = [order[highest], *order[:highest], *order[highest + 1 :]]
        arena = _first_fit(order)
        if arena.size < best.size:
            best = arena
        if best.size <= bound:
            break
    return best


def _first_fit(blocks: Sequence[_Block]) -> Arena:
    placed: list[tuple[int, int, int, int]] = []
    offsets: dict[str, int] = {}
    for block in blocks:
        offset = 0
        for other, size, start, end in placed:
            if start <= block.end and block.start <= end:
                if offset + block.size <= other:
                    break
                offset = max(offset, other + size)
        offsets[block.name] = offset
        insort(placed, (offset, block.size, block.start, block.end))
    return Arena(offsets, max((offset + size for offset, size, _, _ in placed), default=0))


def peak_bytes(network: Network, formats: Formats) -> int:
    """The largest sum of live values over all steps: no placement can be smaller."""
    alive = lifetimes(network)
    sizes = {node.name: kept_bytes(node.shape, formats.kept[node.name]) for node in network}
    steps = range(len(network.nodes))
    return max(sum(sizes[name] for name, (first, last) in alive.items() if first <= step <= last) for step in steps)
