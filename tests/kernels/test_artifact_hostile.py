"""The reader trusts nothing: whatever a file holds, it is refused with a clear error or it runs; it never crashes."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bitplan.errors import FileFormatError
from bitplan.kernels import Runtime

from .hostile import (
    HEADER,
    patched,
    record_of,
    refused,
    repaired,
    resized,
    restructured,
    sample,
    structure,
    survives,
    with_structure,
)


def test_the_sample_itself_runs() -> None:
    assert survives(sample())
    assert repaired(sample()) == sample() == resized(sample())


def test_every_truncation_is_refused() -> None:
    data = sample()
    for length in range(len(data)):
        assert not survives(data[:length])
        if length > HEADER:
            assert not survives(resized(data[:length]))
    assert not survives(data + b"\0")
    assert not survives(resized(data + bytes(8)))


def test_every_flipped_bit_is_refused_as_it_stands() -> None:
    data = sample()
    for position in range(len(data)):
        flipped = bytes([data[position] ^ 1 << position % 8])
        assert not survives(data[:position] + flipped + data[position + 1 :])


def test_flipped_bits_behind_right_checksums_never_crash() -> None:
    data = sample()
    refusals = 0
    for position in range(8, len(data)):
        for bit in range(8) if position % 3 == 0 else (position % 8,):
            flipped = bytes([data[position] ^ 1 << bit])
            refusals += not survives(repaired(data[:position] + flipped + data[position + 1 :]))
    assert refusals > len(data) / 4  # most of the graph is bound by rules


@settings(max_examples=600, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=4)), min_size=1, max_size=4), st.booleans())
def test_random_damage_never_crashes(changes: list[tuple[float, bytes]], in_graph: bool) -> None:
    data = sample()
    span = struct.unpack_from("<Q", data, 24)[0] if in_graph else len(data) - HEADER
    for place, new in changes:
        at = HEADER + int(place * (span - len(new)))
        data = data[:at] + new + data[at + len(new) :]
    survives(repaired(data))


@settings(max_examples=600, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=4)), min_size=1, max_size=3))
def test_random_damage_of_the_structure_never_crashes(changes: list[tuple[float, bytes]]) -> None:
    found = structure(sample())
    for place, new in changes:
        at = int(place * (len(found) - len(new)))
        found = found[:at] + new + found[at + len(new) :]
    survives(with_structure(sample(), found))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=100))
def test_random_bytes_are_no_artifact(data: bytes) -> None:
    refused(data, "truncated" if data.startswith(b"BITPLAN\0") else "not a bitplan artifact")


@settings(max_examples=200, deadline=None)
@given(st.binary(min_size=1, max_size=300))
def test_random_graphs_are_refused(graph: bytes) -> None:
    head = sample()[:24] + struct.pack("<QQ", len(graph), 0) + sample()[40:HEADER]
    data = head + graph
    refused(repaired(data[:16] + struct.pack("<Q", len(data)) + data[24:]))


@pytest.mark.parametrize(
    ("at", "layout", "value", "words"),
    [
        (8, "I", 3, ["version 3", "reads version 4"]),
        (12, "I", 96, ["96", "112"]),
        (16, "Q", 12, ["header says 12"]),
        (24, "Q", 2**63, ["do not add up"]),
        (32, "Q", 2**64 - 1, ["do not add up"]),
        (40, "Q", 2**40, ["2^40"]),
        (40, "Q", 64, ["leaves the arena of 64 bytes"]),
        (48, "I", 0, ["planned batch is 0"]),
        (48, "I", 2**32 - 1, ["2^40"]),
        (52, "H", 0, ["0 nodes"]),
        (52, "H", 15, ["structure has", "behind its outputs"]),
        (52, "H", 17, ["node 16"]),
        (54, "H", 0, ["0 outputs"]),
        (54, "H", 3, ["structure ends inside the outputs"]),
        (92, "I", 1, ["behind its last token"]),
        (92, "I", 2**32 - 1, ["structure"]),
        (96, "I", 1, ["structure ends inside a token"]),
        (96, "I", 2**32 - 1, ["the structure is said to have 4294967295 of the graph's"]),
        (100, "B", 1, ["reserved"]),
    ],
)
def test_each_number_of_the_header_is_checked(at: int, layout: str, value: object, words: list[str]) -> None:
    refused(patched(sample(), at, layout, value), *words)


@pytest.mark.parametrize(
    ("at", "layout", "value", "words"),
    [
        (4, "H", 1, ["node 0"]),
        (6, "B", 16, ["unknown operation number 16"]),
        (7, "B", 6, ["unknown activation number 6"]),
        (7, "B", 2, ["'x'", "cannot have an activation"]),
        (8, "B", 0, ["rank is 0"]),
        (8, "B", 9, ["rank is 9"]),
        (9, "I", 0, ["size of zero on axis 0"]),
        (9, "III", (2**31, 2**31, 2**31), ["2^32 elements"]),
        (21, "B", 1, ["node 0"]),
        (22, "H", 0, ["name is empty"]),
        (24, "B", 0xFF, ["no UTF-8"]),
    ],
)
def test_each_number_of_the_structure_is_checked(at: int, layout: str, value: object, words: list[str]) -> None:
    values = value if isinstance(value, tuple) else (value,)
    refused(restructured(sample(), at, layout, *values), *words)


@pytest.mark.parametrize(
    ("name", "at", "layout", "value", "words"),
    [
        # x is kept in f32 and u2
        ("x", 0, "B", 0, ["formats 0", "1 to 31"]),
        ("x", 0, "B", 32, ["formats 32", "1 to 31"]),
        ("x", 0, "B", 1 + 8 + 16, ["kept in f32+u2+u1; those who read it make that f32+u2"]),
        ("x", 0, "B", 8, ["kept in u2; those who read it make that f32+u2"]),
        ("x", 1, "B", 6, ["format it reads is 6"]),
        ("x", 1, "B", 1, ["no inputs"]),
        ("x", 2, "I", 2, ["no multiple of 4"]),
        ("x", 2, "I", 2**32 - 64, ["leaves the arena"]),
        ("x", 6, "f", 2.0, ["range in u8, which it is not kept in"]),
        ("x", 10, "B", 1, ["range in u8, which it is not kept in"]),
        ("conv", 6, "f", 0.0, ["in u8 is 0"]),
        ("conv", 21, "f", -1.0, ["scale of what it reads in u2 is -1"]),
        ("conv", 21, "f", float("inf"), ["in u2 is inf"]),
        ("conv", 21, "f", float("nan"), ["scale of what it reads in u2"]),
        ("conv", 25, "B", 4, ["zero point", "in u2 is 4", "0 to 3"]),
    ],
)
def test_each_number_of_a_record_is_checked(name: str, at: int, layout: str, value: object, words: list[str]) -> None:
    data = sample()
    refused(patched(data, record_of(data, name) + at, layout, value), *words)


def test_checksums_are_named() -> None:
    data = sample()
    refused(data[:60] + bytes([data[60] ^ 1]) + data[61:], "header is damaged")
    refused(data[:-1] + bytes([data[-1] ^ 1]), "graph or weights are damaged")


def test_errors_of_a_file_name_it(tmp_path: Path) -> None:
    path = tmp_path / "broken.bitplan"
    path.write_bytes(sample()[:-5])
    with pytest.raises(FileFormatError, match=r"broken\.bitplan: truncated: the file has \d+ bytes; its header says"):
        Runtime.load(path)
    path.write_bytes(b"")
    with pytest.raises(FileFormatError, match="not a bitplan artifact"):
        Runtime.load(path)
    with pytest.raises(IsADirectoryError, match="tmp"):
        Runtime.load(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"absent\.bitplan"):
        Runtime.load(tmp_path / "absent.bitplan")
