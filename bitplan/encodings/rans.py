"""Range asymmetric numeral systems (arXiv 1311.2540), table-driven, several lanes that share one stream of words.

A lane's state is a number in 2^16..2^32 - 1. Decoding a symbol of frequency f that begins at slot s, of 2^12 slots:

    slot = state mod 2^12;  state = f (state >> 12) + slot - s;  where that is below 2^16: state = state 2^16 + next word

Encoding does the inverse from the last symbol to the first. It begins with every state at 2^16, so that a decoder must end
there; lanes take words in the order in which they decode.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bitplan.encodings.frequencies import PRECISION, TOTAL

LOWEST = 1 << 16
"""Of a state."""

Integers = NDArray[np.int64]


def encode(starts: Integers, sizes: Integers, lanes: int) -> tuple[Integers, Integers]:
    """The states [lanes] and 16-bit words that decode into symbols at slots starts .. starts + sizes, [steps, lanes].
    A lane that takes no part in a step has the size 0 there."""
    states = [LOWEST] * lanes
    words: list[int] = []
    if lanes == 1:  # plain numbers are faster than arrays of one
        state = LOWEST
        for start, size in zip(starts[::-1, 0].tolist(), sizes[::-1, 0].tolist(), strict=True):
            if state >= size << (32 - PRECISION):
                words.append(state & 0xFFFF)
                state >>= 16
            state = (state // size << PRECISION) + state % size + start
        return np.array([state]), np.array(words[::-1], np.int64)
    return _encode_lanes(starts, sizes, np.array(states, np.int64))


def _encode_lanes(starts: Integers, sizes: Integers, states: Integers) -> tuple[Integers, Integers]:
    parts = []
    limits, divisors = sizes << (32 - PRECISION), np.maximum(sizes, 1)
    takes_part: NDArray[np.bool_] = np.greater(sizes, 0)
    whole = [bool(row.all()) for row in takes_part]
    for step in range(len(starts) - 1, -1, -1):
        full = states >= limits[step]
        if not whole[step]:
            full &= takes_part[step]
        parts.append(states[full][::-1])
        states = np.where(full, states >> 16, states)
        quotient, rest = np.divmod(states, divisors[step])
        following = (quotient << PRECISION) + rest + starts[step]
        states = following if whole[step] else np.where(takes_part[step], following, states)
    words = np.concatenate(parts)[::-1] & 0xFFFF if parts else np.zeros(0, np.int64)
    return states, words


class Decoder:
    """Decodes step by step; `take` raises EOFError where words are missing."""

    def __init__(self, states: Integers, words: Integers) -> None:
        self.states, self.words, self.used = states.copy(), words, 0

    def slots(self, active: int) -> Integers:
        """The slots of the first `active` lanes' next symbols."""
        return self.states[:active] % TOTAL

    def take(self, starts: Integers, sizes: Integers) -> None:
        """Goes on behind the symbols that the first lanes' slots lie in."""
        states = self.states[: len(starts)]
        states[:] = sizes * (states >> PRECISION) + states % TOTAL - starts
        low = np.flatnonzero(states < LOWEST)
        if self.used + len(low) > len(self.words):
            raise EOFError
        states[low] = (states[low] << 16) + self.words[self.used : self.used + len(low)]
        self.used += len(low)
