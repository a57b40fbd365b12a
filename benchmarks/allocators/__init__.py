"""Peers of benchmarks/allocation.py, one file each: from a network, images and a budget to the bits of every layer.

A peer is a module with `ABOUT`, a text for readers of the results, `PACKAGES`, what it needs beside torch, and

    assign(subject: Subject, budgets: Sequence[float]) -> Iterator[tuple[float, dict[str, int]]]

which yields, for each budget (mean bits per weight over all Conv2d and Linear weights), the bits of every layer by the
path of its module. It raises Unavailable where it cannot serve.
"""

from __future__ import annotations

PEERS = ("uniform", "hawq", "mct", "modelopt", "modelopt-kl")


class Unavailable(Exception):
    """A peer that is not installed or cannot serve the network; says why and what helps."""
