"""XOR-coded signs of a given mask, as SQNN stores them (CVPR 2020, arXiv 1905.10138).

Slices of `outputs` signs become words of `inputs` bits, from which a fixed random network of XOR gates makes the signs
again; pruned positions do not matter. Signs that no word can match are listed as patches, so that decoding is exact
for any mask and any signs. Without a register the words come from elimination over GF(2); with one, which lets a slice
see the word before its own too, from the Viterbi algorithm.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from bitplan.encodings.bits import elias_fano_size
from bitplan.encodings.xor_network import splitmix64

Bits = NDArray[np.bool_]
Words = NDArray[np.uint64]
ONE = np.uint64(1)


def parity(values: Words) -> Bits:
    return (np.bitwise_count(values) & 1).astype(bool)


@dataclass(frozen=True)
class XorSlices:
    """inputs: stored bits of a slice (1 to 64; with a register 1 to 8); outputs: its signs. Row r of the network, by
    which the slice's window (with a register: the word before its own above its own) is multiplied, is number r of
    SplitMix64 from `seed` on."""

    inputs: int
    outputs: int
    register: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        most = 8 if self.register else 64
        if not 1 <= self.inputs <= most or self.outputs < 1:
            raise ValueError(f"{self.inputs} bits for {self.outputs} signs; expected 1 to {most} bits, 1 or more signs")

    @property
    def window(self) -> int:
        """Bits that a slice is made from."""
        return 2 * self.inputs if self.register else self.inputs

    @cached_property
    def rows(self) -> Words:
        """The network: one mask of the window's bits for each output, uint64 [outputs]."""
        numbers = splitmix64(np.arange(self.seed, self.seed + self.outputs, dtype=np.uint64))
        return numbers >> np.uint64(64 - self.window)

    def encode(self, signs: Bits, mask: Bits) -> tuple[Words, NDArray[np.int64]]:
        """Words, uint64 [slices], and the patches: which of the kept signs (counted in order) the words get wrong."""
        wanted, care = self._sliced(signs), self._sliced(mask)
        words = self._viterbi(wanted, care) if self.register else self._eliminate(wanted, care)
        return words, np.flatnonzero((self._unfold(words).ravel()[: len(mask)] ^ signs)[mask])

    def decode(self, words: Words, patches: NDArray[np.int64], mask: Bits) -> Bits:
        """The signs of the kept positions, bool [kept]."""
        signs = self._unfold(words).ravel()[: len(mask)][mask]
        signs[patches] ^= True
        return signs

    def stored_bits(self, words: Words, patches: NDArray[np.int64], kept: int) -> int:
        """Bits of words and patches, whose positions are stored in Elias-Fano code behind a count of 32 bits."""
        return self.inputs * len(words) + 32 + 8 * elias_fano_size(len(patches), kept)

    def _sliced(self, flat: Bits) -> Bits:
        padding = np.zeros(-len(flat) % self.outputs, bool)
        return np.concatenate([flat, padding]).reshape(-1, self.outputs)

    def _unfold(self, words: Words) -> Bits:
        window = words.copy()
        if self.register:
            window[1:] |= words[:-1] << np.uint64(self.inputs)
        signs = np.empty((len(words), self.outputs), bool)
        for output, row in enumerate(self.rows):
            signs[:, output] = parity(window & row)
        return signs

    def _eliminate(self, wanted: Bits, care: Bits) -> Words:
        """Takes up the equations of each slice one by one; those that contradict earlier ones become patches."""
        slices = len(wanted)
        basis = np.zeros((self.inputs, slices), np.uint64)  # by pivot: the equation of which it is the highest bit
        right = np.zeros((self.inputs, slices), bool)
        for output, network_row in enumerate(self.rows):
            open_slices = np.flatnonzero(care[:, output])
            row = np.full(len(open_slices), network_row, np.uint64)
            target = wanted[open_slices, output]
            for pivot in range(self.inputs - 1, -1, -1):
                has = (row >> np.uint64(pivot) & ONE).astype(bool)
                known = basis[pivot, open_slices]
                reduce = has & (known != 0)
                new = open_slices[has & ~reduce]
                basis[pivot, new], right[pivot, new] = row[has & ~reduce], target[has & ~reduce]
                row = np.where(reduce, row ^ known, row)
                target = np.where(reduce, target ^ right[pivot, open_slices], target)
                left = ~has | reduce
                open_slices, row, target = open_slices[left], row[left], target[left]
        words = np.zeros(slices, np.uint64)
        for pivot in range(self.inputs):  # lower bits are settled; a pivot without an equation stays zero
            settled = parity(basis[pivot] & words) ^ right[pivot]
            words |= (settled & (basis[pivot] != 0)).astype(np.uint64) << np.uint64(pivot)
        return words

    def _viterbi(self, wanted: Bits, care: Bits) -> Words:
        """The words that leave the fewest patches of all; states are the values of the word before."""
        states = 1 << self.inputs
        windows = np.arange(states * states, dtype=np.uint64)
        makes = np.stack([parity(windows & row) for row in self.rows]).astype(np.uint8)
        misses = np.full(states, len(wanted) * self.outputs, np.int64)
        misses[0] = 0  # before the first word there is a word of zeros
        before = np.empty((len(wanted), states), np.uint8)
        for slice_number, (targets, cared) in enumerate(zip(wanted, care, strict=True)):
            outputs = np.flatnonzero(cared)
            wrong = np.zeros(states * states, np.uint16)
            for output in outputs:
                wrong += makes[output] ^ np.uint8(targets[output])
            table = misses[:, None] + wrong.reshape(states, states)
            before[slice_number] = table.argmin(0)
            misses = np.take_along_axis(table, before[slice_number][None].astype(np.int64), 0)[0]
        words = np.empty(len(wanted), np.uint64)
        state = int(misses.argmin())
        for slice_number in range(len(wanted) - 1, -1, -1):
            words[slice_number] = state
            state = int(before[slice_number, state])
        return words


def best_slices(signs: Bits, mask: Bits, inputs: int, register: bool = False, sample: int = 1 << 15) -> XorSlices:
    """The number of outputs of smallest total, words and patches, on the first weights of a layer."""
    signs, mask = signs[:sample], mask[:sample]
    density = max(float(mask.mean()), 1e-3)
    candidates = [XorSlices(inputs, max(int(inputs * share / density), 1), register) for share in SHARES]
    return min(candidates, key=lambda coder: coder.stored_bits(*coder.encode(signs, mask), int(mask.sum())))


SHARES = (0.75, 0.82, 0.88)
"""Kept signs of a slice, on average, over its stored bits."""
