"""Entropy-coded encodings: exact round trips, the promised bytes, and an error that falls with the rate."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from bitplan.encodings import BY_NAME, encoding_of
from bitplan.encodings.channel_numbers import SHORT_FLOATS
from bitplan.encodings.coded import Coded
from bitplan.encodings.frequencies import TOTAL, Tables, frequencies, law
from bitplan.encodings.level_stream import best_model, decode, encode, lanes_for, read_head
from bitplan.errors import FileFormatError, UsageError
from bitplan.network import WeightShape
from bitplan.variant import Variant

LEVELS = arrays.arrays(
    np.int8, st.tuples(st.integers(1, 9), st.integers(1, 40)), elements=st.integers(-127, 127), fill=st.integers(-1, 1)
)


def coded(name: str) -> Coded:
    encoding = BY_NAME[name]
    assert isinstance(encoding, Coded)
    return encoding


def trained_like(seed: int, out: int = 48, inputs: int = 24) -> NDArray[np.float32]:
    """Weights whose spread differs from channel to channel."""
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(out, inputs, 3, 3)) * rng.lognormal(0, 0.5, (out, 1, 1, 1))).astype(np.float32)


def levels_of(seed: int, spread: float, shape: tuple[int, int] = (40, 90)) -> NDArray[np.int8]:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=shape) * rng.lognormal(0, 0.5, (shape[0], 1)) * spread
    return np.clip(np.rint(rows), -127, 127).astype(np.int8)


@settings(max_examples=60, deadline=None)
@given(LEVELS, st.sampled_from([1, 2, 4, 8]))
def test_any_levels_come_back(levels: NDArray[np.int8], lanes: int) -> None:
    levels = np.maximum(levels, -127)
    lanes = min(lanes, lanes_for(len(levels), 1 << 20))
    data = encode(levels, lanes)
    np.testing.assert_array_equal(decode(data + bytes(3), *levels.shape), levels)
    assert encode(levels, lanes) == data


@pytest.mark.parametrize("spread", [0.3, 1.0, 4.0])
def test_coding_comes_close_to_the_entropy(spread: float) -> None:
    levels = levels_of(1, spread, (256, 200))
    _, counts = np.unique(np.abs(levels), return_counts=True)
    entropy = -(counts * np.log2(counts / counts.sum())).sum() + np.count_nonzero(levels)
    assert 8 * len(encode(levels, 4)) < 0.99 * entropy  # contexts tell wide channels from narrow ones


def test_independent_ternary_codes_take_their_entropy() -> None:
    levels = np.random.default_rng(0).choice([-1, 0, 1], (400, 500), p=[0.06, 0.88, 0.06]).astype(np.int8)
    share = np.count_nonzero(levels) / levels.size
    entropy = share * (1 - np.log2(share)) - (1 - share) * np.log2(1 - share)
    assert 8 * len(encode(levels, 8)) / levels.size < 1.003 * entropy


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 255), min_size=2, max_size=128))
def test_any_lengths_make_a_whole_table(lengths: list[int]) -> None:
    found = frequencies(np.array(lengths))
    assert found[0] + 2 * found[1:].sum() == TOTAL
    assert found[0] >= 1
    np.testing.assert_array_equal(found[1:] == 0, np.array(lengths[1:]) == 255)


def test_laws_are_the_documented_ones() -> None:
    np.testing.assert_array_equal(law(np.array([100, 16, 4]), 4), [100, 128, 130, 132, 135])
    np.testing.assert_array_equal(law(np.array([0, 10, 200]), 3), [0, 128, 128, 128])  # never falls


@pytest.mark.parametrize("text", ["coded:bits=0.3", "coded:bits=2.2", "coded:bits=7.9", "codedternary:bits=0.4"])
@pytest.mark.parametrize(("out", "inputs"), [(1, 1), (3, 1), (5, 7), (48, 24)])
def test_every_layer_fits_its_rate(text: str, out: int, inputs: int) -> None:
    variant = Variant.parse(text)
    encoding = coded(variant.encoding)
    weight = trained_like(2, out, inputs)
    layer = encoding.quantise(weight, np.zeros(out, np.float32), variant)
    packed = encoding.pack(layer)
    assert len(packed) == encoding.size_bytes(layer.shape, variant)
    assert len(packed) - encoding.numbers.size_bytes(out) <= -(-layer.shape.count * variant.parameter("bits") // 8) + 7
    assert ((layer.weight - weight) ** 2).sum() <= (weight**2).sum()
    np.testing.assert_array_equal(encoding.unpack(packed, layer.shape, variant).levels, layer.levels)


def test_outliers_and_single_weights_do_not_break_the_rate() -> None:
    weight = trained_like(3)
    weight[0, 0, 0, 0] = 1e4
    for name, bits in (("coded", 1.0), ("codedternary", 0.65)):
        variant = Variant(name, parameters=(("bits", bits),))
        layer = coded(name).quantise(weight, np.zeros(48, np.float32), variant)
        assert len(coded(name).pack(layer)) == coded(name).size_bytes(layer.shape, variant)
        assert np.isfinite(layer.weight).all()


@pytest.mark.parametrize(
    ("name", "rates"), [("coded", [0.3, 0.6, 1, 1.5, 2, 3, 4, 6]), ("codedternary", [0.2, 0.4, 0.65, 1, 1.3, 1.6])]
)
def test_more_bits_never_have_more_error(name: str, rates: list[float]) -> None:
    weight, errors = trained_like(4), []
    for bits in rates:
        variant = Variant(name, parameters=(("bits", bits),))
        layer = coded(name).quantise(weight, np.zeros(48, np.float32), variant)
        errors.append(float(((layer.weight - weight) ** 2).sum()))
    assert errors == sorted(errors, reverse=True)


def test_coded_is_better_than_codes_of_fixed_length() -> None:
    weight = trained_like(5, 64, 64)
    for fixed, variant in (("int2", "coded:bits=2"), ("int3", "coded:bits=3")):
        found = [
            encoding_of(v).quantise(weight, np.zeros(64, np.float32), v) for v in map(Variant.parse, (fixed, variant))
        ]
        errors = [float(((layer.weight - weight) ** 2).sum()) for layer in found]
        assert errors[1] < errors[0]


@pytest.mark.parametrize("text", ["coded:bits=1.5", "codedternary:bits=0.5"])
def test_levels_that_are_chosen_otherwise_can_be_made_to_fit(text: str) -> None:
    variant = Variant.parse(text)
    encoding = coded(variant.encoding)
    layer = encoding.quantise(trained_like(6), np.zeros(48, np.float32), variant)
    assert encoding.fits(layer.levels, variant)
    np.testing.assert_array_equal(encoding.shrink(layer.levels, variant), layer.levels)
    ideal = layer.levels + np.random.default_rng(6).normal(size=layer.levels.shape)
    more = np.clip(np.rint(ideal), -encoding.top, encoding.top).astype(np.int8)
    assert not encoding.fits(more, variant)
    with pytest.raises(UsageError, match=r"take \d+ bytes.*has \d+"):
        encoding.pack(replace(layer, levels=more))
    fewer = encoding.shrink(more, variant, ideal)
    assert encoding.fits(fewer, variant)
    assert np.all(np.abs(fewer) <= np.abs(more)) and np.all(fewer * more >= 0)
    assert np.count_nonzero(fewer) > 0.5 * np.count_nonzero(layer.levels)


def test_code_lengths_are_those_that_the_coder_reaches() -> None:
    variant = Variant.parse("coded:bits=2")
    layer = coded("coded").quantise(trained_like(7), np.zeros(48, np.float32), variant)
    lengths = coded("coded").code_lengths(layer.levels, variant)
    assert lengths.shape == (*layer.levels.shape, 255)
    total = np.take_along_axis(lengths, layer.levels[..., None].astype(np.int64) + 127, -1).sum() / 8
    assert total == pytest.approx(coded("coded").capacity(layer.shape, variant), rel=0.04)
    assert np.all(lengths[..., 127 + 1] == lengths[..., 127 - 1])
    with pytest.raises(UsageError, match="all levels are zero"):
        coded("coded").code_lengths(np.zeros_like(layer.levels), variant)


def test_a_tiny_layer_has_these_bytes() -> None:
    levels = np.array([[0, 1, -1, 0, 2, 0], [0, 0, 1, 0, 0, -3]], np.int8)
    assert encode(levels, 1).hex() == GOLDEN
    assert encode(np.zeros_like(levels), 1) == b"\0"


GOLDEN = "8003717e8887b4d80062b8"


def test_memory_is_that_of_the_decoded_layer() -> None:
    shape = WeightShape(37, 70, (3, 3))
    for text, loaded in (
        ("coded:bits=2", "int8"),
        ("codedternary:bits=1", "ternary"),
        ("codedternary@u2:bits=1", "ternary@u2"),
    ):
        variant, other = Variant.parse(text), Variant.parse(loaded)
        assert encoding_of(variant).in_memory(variant) == other
        assert encoding_of(variant).resident_bytes(shape, variant) == encoding_of(other).resident_bytes(shape, other)


SEVERAL = encode(levels_of(8, 2.0), 2)


@pytest.mark.parametrize(
    ("data", "rule"),
    [
        (b"", "ends inside its head"),
        (b"\0\0\1", "behind a layer of zeros"),
        (b"\x80", "ends inside its head"),
        (b"\x7f\1", "unknown model"),
        (b"\x86\1", "unknown model"),
        (b"\x80\0", "magnitude of 0"),
        (b"\x80\x80", "magnitude of 128"),
        (b"\x80\3\1", "inside its tables"),
        (b"\x80\1\x80\0\0", "inside its states"),
        (b"\x80\1\x80\0\0\0\0", "below 2\\^16"),
        (b"\x80\1\x80\1\0\1\0", "too early|last state"),
        (SEVERAL[:2] + b"\xff\xff" + SEVERAL[4:], "a mean of 65535"),
        (SEVERAL[:4] + b"\0" + SEVERAL[5:], "do not ascend"),
        (SEVERAL[:-2], "too early"),
        (SEVERAL + b"\0\1", "behind the last word"),
    ],
)
def test_damaged_streams_are_refused(data: bytes, rule: str) -> None:
    with pytest.raises(FileFormatError, match=rule):
        decode(data, 40, 90)


def test_levels_beyond_an_encoding_are_refused() -> None:
    variant, shape = Variant.parse("codedternary:bits=8"), WeightShape(2, 6)
    packed = bytearray(coded("codedternary").size_bytes(shape, variant))
    stream = encode(np.full((2, 6), 2, np.int8), 1)
    zeros = np.zeros(2, np.float32)
    head = SHORT_FLOATS.pack(zeros, zeros, zeros > 0)
    packed[: len(head) + len(stream)] = head + stream
    with pytest.raises(FileFormatError, match="a level of 2 in a codedternary layer"):
        coded("codedternary").unpack(bytes(packed), shape, variant)


def test_a_head_says_what_it_was_written_from() -> None:
    for spread in (0.3, 3.0):
        model = best_model(levels_of(9, spread, (200, 300)), 4)
        found, rest = read_head(model.head() + b"rest")
        assert (found.lanes, found.tables, rest) == (model.lanes, model.tables, b"rest")
        assert isinstance(found.tables, Tables)
