"""Every layer with the same bits: the most that the budget allows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .assignment import MENU
from .subject import Subject

ABOUT = "all layers, first and last too, with the largest bits of the menu that the budget allows"
PACKAGES: tuple[str, ...] = ()


def assign(subject: Subject, budgets: Sequence[float]) -> Iterator[tuple[float, dict[str, int]]]:
    for budget in budgets:
        bits = max(bits for bits in MENU if bits <= budget)
        yield budget, dict.fromkeys(subject.layers, bits)
