"""A real order-0 entropy coder: static rANS (Duda, arXiv 1311.2540), interleaved over lanes, in numpy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SCALE = 12
"""Frequencies add up to 2^12."""

LANES = 64


@dataclass(frozen=True)
class Coded:
    frequencies: NDArray[np.int64]
    states: NDArray[np.uint64]
    words: NDArray[np.uint16]
    count: int

    @property
    def bits(self) -> int:
        return 16 * (len(self.frequencies) + len(self.words)) + 32 * len(self.states)


def encode(symbols: NDArray[np.uint8]) -> Coded:
    """Symbols below 4 or so; every one that occurs gets a frequency of at least one."""
    counts = np.bincount(symbols)
    frequencies = np.maximum(np.rint(counts * 2.0**SCALE / len(symbols)).astype(np.int64), counts > 0)
    frequencies[frequencies.argmax()] += (1 << SCALE) - frequencies.sum()
    frequency, start = frequencies.astype(np.uint64), (np.cumsum(frequencies) - frequencies).astype(np.uint64)
    rows = np.concatenate([symbols, np.full(-len(symbols) % LANES, symbols[0], np.uint8)]).reshape(-1, LANES)
    states, words = np.full(LANES, 1 << 16, np.uint64), []
    for row in rows[::-1]:
        own = frequency[row]
        full = states >= own << np.uint64(32 - SCALE)
        words.append(states[full].astype(np.uint16))
        states[full] >>= np.uint64(16)
        states = (states // own << np.uint64(SCALE)) + states % own + start[row]
    return Coded(frequencies, states, np.concatenate(words[::-1]), len(symbols))


def decode(coded: Coded) -> NDArray[np.uint8]:
    frequency = coded.frequencies.astype(np.uint64)
    start = np.cumsum(frequency) - frequency
    symbol_of = np.repeat(np.arange(len(frequency), dtype=np.uint8), coded.frequencies)
    states, at = coded.states.copy(), 0
    rows = np.empty((-(-coded.count // LANES), LANES), np.uint8)
    for row in rows:
        slot = states & np.uint64((1 << SCALE) - 1)
        row[:] = symbol_of[slot]
        states = frequency[row] * (states >> np.uint64(SCALE)) + slot - start[row]
        empty = states < 1 << 16
        taken = int(empty.sum())
        states[empty] = states[empty] << np.uint64(16) | coded.words[at : at + taken]
        at += taken
    return rows.ravel()[: coded.count]
