"""What is compressed as bytes and copies comes back, is small where parts are alike, and damage is refused."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitplan.errors import FileFormatError
from bitplan.kernels.repeats import LONGEST, compressed, expanded


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from([b"a", b"abc", b"\0\0\0", b"layer1.0.conv", bytes(range(7))]) | st.binary(max_size=5)))
def test_everything_comes_back(parts: list[bytes]) -> None:
    data = b"".join(parts)
    found = compressed(data)
    assert expanded(found, len(data)) == data
    assert 8 * len(found) <= 9 * len(data) + 7


def test_repeats_cost_little() -> None:
    assert len(compressed(b"x" * 6400)) <= 200
    block = bytes(range(40))
    assert len(compressed(block * 50)) <= 45 + 50 * 2


@pytest.mark.parametrize(("data", "tokens"), [(b"", b""), (b"a", b"\xc2\x00"), (b"aaaa", b"\xc2\x6a")])
def test_the_tokens_are_those_of_the_format(data: bytes, tokens: bytes) -> None:
    """0 and a byte; then 1, 0, distance 1 (a one) and length 3 (0, 1, 1)."""
    assert expanded(tokens, len(data)) == data
    assert len(compressed(data)) <= len(tokens)


@pytest.mark.parametrize(
    ("data", "size", "rule"),
    [
        (b"", 1, "ends inside a token"),
        (b"\xc2", 1, "ends inside a token"),
        (b"\xc2\x00\x00", 1, "behind its last token"),
        (b"\xc2\x02", 1, "behind its last token"),
        (b"\x07", 1, "copies 1 bytes from 0 back at byte 0 of 1"),
        (b"\xc2\x6a", 3, "copies 3 bytes from 1 back at byte 1 of 3"),
    ],
)
def test_damage_is_refused(data: bytes, size: int, rule: str) -> None:
    with pytest.raises(FileFormatError, match=rule):
        expanded(data, size)


def test_a_copy_has_at_most_its_longest_length() -> None:
    data = compressed(bytes(2 * LONGEST + 3))
    assert expanded(data, 2 * LONGEST + 3) == bytes(2 * LONGEST + 3)
