"""The decoder of XOR-coded sparse signs: a shift register that feeds a fixed network of XOR gates.

After SQNN (Kwon et al., Structured Compression by Weight Encryption, CVPR 2020, arXiv 1905.10138), where such a network
unfolds few stored bits into many signs and the mask of the pruned weights is stored beside them. Here the network makes
the mask as well: of the nine gates of each weight, eight form a number that is compared with a density, the ninth is
the sign. Nothing but the bits of the register is stored, at a fixed rate, and every position can be decoded alone.

    register of step i   bits [i * rate // 16, i * rate // 16 + 12) of the code, the first one lowest
    gate g               parity(register & mask[g]) ^ flip[g]
    weight j of step i   0 unless gates 9 j ... 9 j + 7 (lowest first) make a number below `density`,
                         else 1 where gate 9 j + 8 is set, -1 where it is not
    mask[g], flip[g]     bits 0 to 11, and bit 12, of splitmix64(64 seed + g)

A step makes four weights, which is one byte of two-bit codes: the whole network is a table of 4,096 bytes.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

REGISTER = 12
"""Bits of the shift register."""

STEP = 4
"""Weights that one step makes."""

GATES = 9
"""XOR gates of one weight: eight for the mask and one for the sign."""

PAD = 4
"""Bytes behind a code, so that whole words can be read at any bit of it."""


def splitmix64(counter: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Output number `counter` of the generator SplitMix64 (Steele et al., OOPSLA 2014) started at zero."""
    mixed = (counter + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ mixed >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ mixed >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return np.asarray(mixed ^ mixed >> np.uint64(31), np.uint64)


@lru_cache(maxsize=64)
def network_table(seed: int, density: int) -> NDArray[np.uint8]:
    """What the network makes of each content of the register, uint8 [4096]: four codes of two bits (level + 1), the
    first weight lowest. `density` is in 1 / 256."""
    wiring = splitmix64(np.arange(64 * seed, 64 * seed + GATES * STEP, dtype=np.uint64))
    register = np.arange(1 << REGISTER, dtype=np.uint64)
    selected = register & (wiring[:, None] & np.uint64((1 << REGISTER) - 1))
    gates = (np.bitwise_count(selected) ^ (wiring[:, None] >> np.uint64(REGISTER)).astype(np.uint8)) & 1
    table = np.zeros(len(register), np.uint8)
    for weight, own in enumerate(gates.reshape(STEP, GATES, -1)):
        number = np.packbits(own[:8], axis=0, bitorder="little")[0]
        table |= np.where(number < density, 2 * own[8], 1).astype(np.uint8) << (2 * weight)
    table.setflags(write=False)
    return table


def steps_of(count: int) -> int:
    """Steps that make `count` weights."""
    return -(-count // STEP)


def first_bits(steps: int, rate: int) -> NDArray[np.int64]:
    """Where the register of each step begins in the code, int64 [steps]; `rate` in sixteenths of a bit per step."""
    return np.arange(steps, dtype=np.int64) * rate >> 4


def code_size(count: int, rate: int) -> int:
    """Bytes of the code of `count` weights."""
    return -(-((steps_of(count) - 1) * rate // 16 + REGISTER) // 8)


def registers(code: NDArray[np.uint8], count: int, rate: int) -> NDArray[np.int64]:
    """The content of the register at each step, int64 [steps], from the bytes of a code."""
    padded = np.concatenate([code, np.zeros(PAD, np.uint8)]).astype(np.int64)
    first = first_bits(steps_of(count), rate)
    byte = first >> 3
    words = padded[byte] | padded[byte + 1] << 8 | padded[byte + 2] << 16
    return np.asarray(words >> (first & 7) & ((1 << REGISTER) - 1), np.int64)


def code_of(contents: NDArray[np.int64], count: int, rate: int) -> NDArray[np.uint8]:
    """The inverse of `registers`; consecutive contents must agree where they overlap."""
    bits = np.zeros(8 * code_size(count, rate), np.uint8)
    first = first_bits(steps_of(count), rate)
    for bit in range(REGISTER):
        bits[first + bit] = contents >> bit & 1
    return np.packbits(bits, bitorder="little")


def levels_of_codes(codes: NDArray[np.uint8], count: int) -> NDArray[np.int8]:
    """Levels, int8 [count], from one byte per step."""
    return ((codes[:, None] >> np.arange(0, 8, 2, dtype=np.uint8) & 3).ravel()[:count].astype(np.int8) - 1).astype(
        np.int8
    )


def decode(code: NDArray[np.uint8], count: int, rate: int, seed: int, density: int) -> NDArray[np.int8]:
    """The levels (-1, 0, 1), int8 [count], that a code of `code_size(count, rate)` bytes stands for."""
    return levels_of_codes(network_table(seed, density)[registers(code, count, rate)], count)
