"""The encoding xor: its search against a reference and brute force, its rate against theory, its file."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitplan.encodings import BY_NAME, encoding_of
from bitplan.encodings.channel_numbers import SHORT_FLOATS
from bitplan.encodings.trellis import nearest_registers
from bitplan.encodings.xor import Xor
from bitplan.encodings.xor_network import (
    REGISTER,
    code_of,
    code_size,
    decode,
    network_table,
    registers,
    splitmix64,
)
from bitplan.errors import FileFormatError
from bitplan.kernels._runtime import decode_xor
from bitplan.network import WeightShape
from bitplan.variant import Variant

from . import trellis_reference

QUARTER = Variant.parse("xor:bits=0.25")


def quantised(weight: np.ndarray, variant: Variant = QUARTER) -> np.ndarray:
    layer = encoding_of(variant).quantise(weight[:, :, None, None], np.zeros(len(weight), np.float32), variant)
    return layer.weight[:, :, 0, 0]


def relative_error(weight: np.ndarray, found: np.ndarray) -> float:
    return float(((weight - found) ** 2).sum() / (weight**2).sum())


def test_the_generator_is_the_published_one() -> None:
    assert [int(n) for n in splitmix64(np.arange(2, dtype=np.uint64))] == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4]


def test_the_table_is_what_the_gates_say() -> None:
    wiring = [int(n) for n in splitmix64(np.arange(64 * 3, 64 * 3 + 36, dtype=np.uint64))]
    table = network_table(3, 40)
    for register in (0, 1, 77, 2048, 4095):
        for weight in range(4):
            gates = [((register & g & 4095).bit_count() + (g >> 12)) & 1 for g in wiring[9 * weight : 9 * weight + 9]]
            number = sum(gate << bit for bit, gate in enumerate(gates[:8]))
            assert table[register] >> 2 * weight & 3 == (2 * gates[8] if number < 40 else 1)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 300), st.integers(1, 96), st.integers(0, 255), st.integers(1, 255), st.integers(0, 2**32 - 1))
def test_any_code_is_decoded_as_its_registers_say(count: int, rate: int, seed: int, density: int, draw: int) -> None:
    code = np.random.default_rng(draw).integers(0, 256, code_size(count, rate), np.uint8)
    contents = registers(code, count, rate)
    levels = decode(code, count, rate, seed, density)
    bits = np.unpackbits(code, bitorder="little")
    for step in range(0, len(contents), 7):
        window = bits[step * rate // 16 :][:REGISTER]
        assert contents[step] == sum(int(bit) << i for i, bit in enumerate(window))
    codes = network_table(seed, density)[contents]
    np.testing.assert_array_equal(levels, [(int(codes[i // 4]) >> 2 * (i % 4) & 3) - 1 for i in range(count)])
    np.testing.assert_array_equal(registers(code_of(contents, count, rate), count, rate), contents)
    compiled = decode_xor(bytes([seed, density]) + code.tobytes(), count, rate)
    np.testing.assert_array_equal(
        (np.repeat(compiled, 4)[:count] >> 2 * (np.arange(count) % 4) & 3).astype(np.int8) - 1, levels
    )


@pytest.mark.parametrize(
    ("data", "count", "rate", "match"),
    [
        (bytes(4), 4, 16, "density"),
        (bytes([0, 20, 0]), 4, 16, "length"),
        (bytes([0, 20, 0, 0, 0]), 4, 16, "length"),
        (bytes([0, 20, 0, 0]), 0, 16, "weights"),
        (bytes([0, 20, 0]), 2**64 - 1, 64, "weights"),
        (bytes([0, 20, 0, 0]), 4, 97, "rate"),
    ],
)
def test_a_damaged_code_is_refused_by_the_compiled_decoder(data: bytes, count: int, rate: int, match: str) -> None:
    with pytest.raises(FileFormatError, match=match):
        decode_xor(data, count, rate)


@pytest.mark.parametrize(("count", "rate"), [(1, 16), (37, 5), (700, 16), (6001, 23), (2500, 64), (1500, 96)])
def test_the_compiled_search_is_the_reference(count: int, rate: int) -> None:
    costs = np.random.default_rng(count).normal(size=(count, 3)).astype(np.float32)
    table = network_table(1, 60)
    found = nearest_registers(costs, rate, table)
    np.testing.assert_array_equal(found, trellis_reference.nearest_registers(costs, rate, table))


@pytest.mark.parametrize("rate", [16, 24, 40])
def test_no_code_is_better(rate: int) -> None:
    count = 12
    costs = np.random.default_rng(rate).normal(size=(count, 3)).astype(np.float32)
    table = network_table(0, 90)

    def cost(levels: np.ndarray) -> float:
        return float(costs[np.arange(count), levels + 1].sum())

    contents = nearest_registers(costs, rate, table)
    found = cost(decode(code_of(contents, count, rate), count, rate, 0, 90))
    bits = 2 * rate // 16 + REGISTER
    every = np.arange(1 << bits)
    total = np.zeros(len(every))
    for step in range(3):
        codes = table[every >> (step * rate // 16) & 4095]
        for weight in range(4):
            total += costs[4 * step + weight, (codes >> 2 * weight & 3).clip(max=2)]
    assert found == pytest.approx(total.min(), abs=1e-5)


@pytest.mark.parametrize(
    ("bits", "source", "most"),
    [(0.25, "normal", 0.755), (0.25, "laplace", 0.70), (0.5, "normal", 0.55), (1.0, "normal", 0.30)],
)
def test_the_error_is_near_what_the_rate_allows(bits: float, source: str, most: float) -> None:
    """Shannon's bound for Gaussian weights is 2^(-2 bits): 0.707, 0.5, 0.25."""
    rng = np.random.default_rng(5)
    weight = getattr(rng, source)(size=(64, 512)).astype(np.float32)
    variant = Variant("xor", "u8", (("bits", bits),))
    assert relative_error(weight, quantised(weight, variant)) < most


def test_a_quarter_bit_keeps_more_than_entropy_coding_the_largest() -> None:
    """0.28 bits pay for mask and signs of the largest 4.0 %, coded without loss at their entropy."""
    weight = np.random.default_rng(6).normal(size=(64, 512)).astype(np.float32)
    found = quantised(weight)
    right = found * weight > 0
    kept = float((weight[right] ** 2).sum() / (weight**2).sum())
    largest = np.sort(weight.ravel() ** 2)[::-1][: round(0.04 * weight.size)].sum() / (weight**2).sum()
    assert kept > 1.2 * largest
    assert 0.08 < (found != 0).mean() < 0.11  # "91 % pruned"


@pytest.mark.parametrize("bits", [0.25, 0.2656, 0.3, 0.5, 0.8, 1.5])
def test_sizes_are_the_bits_asked_for(bits: float) -> None:
    shape, variant = WeightShape(4096, 9216), Variant("xor", "u8", (("bits", bits),))
    code = BY_NAME["xor"].size_bytes(shape, variant) - SHORT_FLOATS.size_bytes(4096)
    assert 8 * code / shape.count == pytest.approx(bits, abs=1 / 256)


def test_levels_without_their_code_cannot_be_packed() -> None:
    weight = np.random.default_rng(0).normal(size=(8, 8, 1, 1)).astype(np.float32)
    layer = BY_NAME["xor"].quantise(weight, np.zeros(8, np.float32), QUARTER)
    with pytest.raises(ValueError, match="not those of its code"):
        BY_NAME["xor"].pack(replace(layer, levels=-layer.levels - (layer.levels == 0)))


def test_a_network_of_density_zero_is_refused() -> None:
    shape = WeightShape(8, 8)
    layer = Xor().random_layer(shape, QUARTER, 1.0, np.random.default_rng(0))
    packed = bytearray(Xor().pack(layer))
    packed[SHORT_FLOATS.size_bytes(8) + 1] = 0
    with pytest.raises(FileFormatError, match="density of an xor layer is 0"):
        Xor().unpack(bytes(packed), shape, QUARTER)
