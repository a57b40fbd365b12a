"""Evenly spaced levels of few bits: which levels they are, what they take in the file, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from bitplan.encodings import BY_NAME, default_menu
from bitplan.encodings.bits import packed_size
from bitplan.encodings.even import EvenLevels
from bitplan.errors import FileFormatError
from bitplan.network import WeightShape

SHAPE = WeightShape(12, 10, (3, 3))


def layer_of(encoding: EvenLevels):
    weight = np.random.default_rng(0).normal(size=(12, 10, 3, 3)).astype(np.float32)
    return encoding.quantise(weight, np.zeros(12, np.float32), encoding.variants[0])


@pytest.mark.parametrize("bits", [2, 4, 7])
@pytest.mark.parametrize("zero", [True, False])
def test_levels_are_symmetric_and_have_a_zero_or_none(bits: int, zero: bool) -> None:
    found = np.unique(layer_of(EvenLevels("even", bits, zero)).levels)
    top = 2 ** (bits - 1) - 1 if zero else 2**bits - 1
    assert set(found) <= set(range(-top, top + 1, 1 if zero else 2))
    assert found.max() == top == -found.min()


@pytest.mark.parametrize("bits", [1, 8])
def test_other_numbers_of_bits_are_refused(bits: int) -> None:
    with pytest.raises(ValueError, match=f"even has {bits} bits; .* 2 to 7"):
        EvenLevels("even", bits, zero=False)


@pytest.mark.parametrize(("name", "bits"), [("int6", 6), ("int5", 5)])
def test_a_file_holds_the_bits_of_the_name_and_memory_a_byte(name: str, bits: int) -> None:
    encoding = BY_NAME[name]
    variant = encoding.variants[0]
    assert encoding.size_bytes(SHAPE, variant) == -(-(8 + 4 * 12 + 2 + packed_size(1080, bits)) // 8) * 8
    assert encoding.resident_bytes(SHAPE, variant) == BY_NAME["int8"].resident_bytes(SHAPE, BY_NAME["int8"].variants[0])
    assert variant not in default_menu()


def test_layers_packed_as_another_encoding_are_refused() -> None:
    packed = bytearray(BY_NAME["int5"].pack(layer_of(BY_NAME["int5"])))
    packed[8 + 4 * 12] = 256 - 29
    with pytest.raises(FileFormatError, match="int5 layer has levels from -29 in steps of 2; expected from -31"):
        BY_NAME["int5"].unpack(bytes(packed), SHAPE, BY_NAME["int5"].variants[0])


def test_the_code_that_is_left_over_is_refused() -> None:
    encoding = EvenLevels("even", 3, zero=True)
    packed = bytearray(encoding.pack(layer_of(encoding)))
    packed[8 + 4 * 12 + 2] |= 7
    with pytest.raises(FileFormatError, match="a level of 4 in a even layer; its levels reach to 3"):
        encoding.unpack(bytes(packed), SHAPE, encoding.variants[0])
