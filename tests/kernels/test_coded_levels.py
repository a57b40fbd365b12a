"""The C++ decoder of entropy-coded levels: the same as the one in Python, whatever it is given."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bitplan.encodings import level_stream
from bitplan.encodings.channel_numbers import SHORT_FLOATS
from bitplan.errors import FileFormatError
from bitplan.kernels._runtime import decode_levels
from bitplan.variant import Variant

from .hostile import one_layer, patched, refused, survives


def levels_of(spread: float, shape: tuple[int, int], seed: int = 0) -> NDArray[np.int8]:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=shape) * rng.lognormal(0, 0.8, (shape[0], 1)) * rng.lognormal(0, 0.3, shape[1]) * spread
    return np.clip(np.rint(rows), -127, 127).astype(np.int8)


@pytest.mark.parametrize("shape", [(1, 1), (7, 25), (33, 100), (300, 9), (5, 700)])
@pytest.mark.parametrize("spread", [0.1, 0.5, 2.0, 30.0])
def test_both_decoders_find_the_levels(shape: tuple[int, int], spread: float) -> None:
    levels = levels_of(spread, shape)
    for lanes in (1, 4, 32):
        if lanes <= shape[0]:
            data = level_stream.encode(levels, lanes) + bytes(lanes % 3)
            np.testing.assert_array_equal(decode_levels(data, *shape, 127), levels)
    np.testing.assert_array_equal(level_stream.decode(data, *shape), levels)


def decoded(data: bytes, python: bool) -> NDArray[np.int8] | None:
    try:
        return level_stream.decode(data, 20, 45) if python else decode_levels(data, 20, 45, 127)
    except FileFormatError:
        return None


SAMPLES = [level_stream.encode(levels_of(spread, (20, 45)), lanes) for spread in (0.3, 3.0) for lanes in (1, 8)]


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(SAMPLES), st.integers(0, 60), st.binary(min_size=1, max_size=3))
def test_both_decoders_agree_about_damage(data: bytes, place: int, new: bytes) -> None:
    damaged = data[:place] + new + data[place + len(new) :]
    first, second = decoded(damaged, True), decoded(damaged, False)
    assert (first is None) == (second is None)
    if first is not None:
        np.testing.assert_array_equal(first, second)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 255))
def test_random_bytes_are_refused_or_decoded(data: bytes, kinds: int) -> None:
    decoded(bytes([kinds]) + data, False)


def test_every_truncated_stream_is_refused() -> None:
    for data in SAMPLES:
        for length in range(len(data)):
            assert decoded(data[:length], False) is None
        assert decoded(data + b"\1", False) is None


@pytest.mark.parametrize(
    ("text", "at", "value", "words"),
    [
        ("coded:bits=3", 0, 0x7F, ["'op'", "unknown model, 127"]),
        ("coded:bits=3", 1, 0, ["'op'", "largest level is 0", "1 to 127"]),
        ("codedternary:bits=1", 1, 2, ["'op'", "largest level is 2", "1 to 1"]),
        ("codedternary:bits=1", -1, 1, ["'op'", "bytes behind its coded levels"]),
    ],
)
def test_errors_of_a_layer_name_it(text: str, at: int, value: int, words: list[str]) -> None:
    data, start = one_layer(Variant.parse(text))
    place = start + SHORT_FLOATS.size_bytes(20) + at if at >= 0 else len(data) - 1
    refused(patched(data, place, "B", value), *words)


def test_damaged_coded_layers_never_crash() -> None:
    for text in ("coded:bits=2", "codedternary:bits=0.65"):
        data, start = one_layer(Variant.parse(text))
        for place in range(start, len(data)):
            survives(patched(data, place, "B", data[place] ^ 1 << place % 8))
