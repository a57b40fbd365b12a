"""How a file holds the scale and the bias of each output channel: as ratios to a unit of their own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cache
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from bitplan.errors import FileFormatError

FloatArray = NDArray[np.float32]
Numbers = NDArray[np.floating]


class ChannelNumbers(ABC):
    """Scale (not negative) and bias, float32 [out] each. What comes out of `rounded` or `unpack` stays itself under `rounded` and
    `pack`."""

    header: ClassVar[int]
    """Bytes in front of the ratios."""
    width: ClassVar[int]
    """Bytes of a channel's two ratios."""

    def size_bytes(self, out: int) -> int:
        return self.header + self.width * out

    @abstractmethod
    def rounded(self, scale: Numbers, bias: Numbers, live: NDArray[np.bool_]) -> tuple[FloatArray, FloatArray]:
        """The nearest that the file can hold. `live` [out]: whether a channel has a level that is not zero."""

    @abstractmethod
    def pack(self, scale: FloatArray, bias: FloatArray, live: NDArray[np.bool_]) -> bytes:
        """Exactly `size_bytes`."""

    @abstractmethod
    def unpack(self, data: bytes, out: int) -> tuple[FloatArray, FloatArray]:
        """Scale and bias. Raises FileFormatError."""


class Halves(ChannelNumbers):
    """[unit of scale f32][unit of bias f32][scale f16 x out][bias f16 x out], a unit being the largest magnitude."""

    header = 8
    width = 4

    def rounded(self, scale: Numbers, bias: Numbers, live: NDArray[np.bool_]) -> tuple[FloatArray, FloatArray]:
        return round_to_half(scale), round_to_half(bias)

    def pack(self, scale: FloatArray, bias: FloatArray, live: NDArray[np.bool_]) -> bytes:
        (scale_unit, scales), (bias_unit, biases) = halves(scale), halves(bias)
        units = np.array([scale_unit, bias_unit], "<f4").tobytes()
        return units + scales.astype("<f2").tobytes() + biases.astype("<f2").tobytes()

    def unpack(self, data: bytes, out: int) -> tuple[FloatArray, FloatArray]:
        units = np.frombuffer(data, "<f4", 2)
        ratios = np.frombuffer(data, "<f2", 2 * out, self.header).astype(np.float32)
        return units[0] * ratios[:out], units[1] * ratios[out:]


class ShortFloats(ChannelNumbers):
    """[unit of scale f32][unit of bias f32][mantissas u8][scale u8 x out][bias u8 x out]: floating-point numbers of eight
    bits, biases with a sign. How many of the bits are mantissa (low half of `mantissas`: of scales, high half: of biases)
    is chosen for each layer: few where its numbers differ by orders of magnitude. (Decision 0022.)"""

    header = 9
    width = 2

    def rounded(self, scale: Numbers, bias: Numbers, live: NDArray[np.bool_]) -> tuple[FloatArray, FloatArray]:
        return _value(*_scale_codes(scale, live)), _value(*_bias_codes(bias))

    def pack(self, scale: FloatArray, bias: FloatArray, live: NDArray[np.bool_]) -> bytes:
        scale_unit, scale_bits, scales = _scale_codes(scale, live)
        bias_unit, bias_bits, biases = _bias_codes(bias)
        signed = np.where(biases < 0, 128 - biases, biases)
        codes = np.concatenate([np.array([scale_bits + 16 * bias_bits]), scales, signed]).astype(np.uint8)
        return bytes(np.array([scale_unit, bias_unit], "<f4").tobytes() + codes.tobytes())

    def unpack(self, data: bytes, out: int) -> tuple[FloatArray, FloatArray]:
        units = np.frombuffer(data, "<f4", 2)
        scale_bits, bias_bits = data[8] % 16, data[8] // 16
        if scale_bits not in SCALE_MANTISSAS or bias_bits not in BIAS_MANTISSAS:
            raise FileFormatError(
                f"scales with a mantissa of {scale_bits} bits and biases with one of {bias_bits}; expected 3 to 7 and 2 to 6"
            )
        if not np.isfinite(units).all():
            raise FileFormatError(f"units of scale and bias of {units[0]} and {units[1]}; expected finite numbers")
        codes = np.frombuffer(data, np.uint8, 2 * out, self.header).astype(np.int64)
        biases = codes[out:] % 128 * np.where(codes[out:] < 128, 1, -1)
        return _value(units[0], scale_bits, codes[:out]), _value(units[1], bias_bits, biases)


SCALE_MANTISSAS = range(3, 8)
BIAS_MANTISSAS = range(2, 7)
"""Bits of the mantissa: with the most of them there is no exponent, and numbers are evenly spaced."""

UNIT_BITS = 16
"""Significant bits of a unit, so that its products with all codes are exact and a layer is rounded once."""

HALVES, SHORT_FLOATS = Halves(), ShortFloats()


@cache
def _magnitudes(codes: int, mantissa: int) -> NDArray[np.float64]:
    """What 0 ... codes - 1 stand for, ascending: with exponent e and fraction f, f if e is 0, else
    (2^mantissa + f) 2^(e - 1)."""
    code = np.arange(codes)
    exponent, fraction = code >> mantissa, code & (1 << mantissa) - 1
    return np.where(exponent == 0, fraction, np.ldexp(fraction + float(1 << mantissa), np.maximum(exponent - 1, 0)))


def _value(unit: np.float32, mantissa: int, codes: NDArray[np.int64]) -> FloatArray:
    magnitudes = _magnitudes(256, mantissa)[np.abs(codes)].astype(np.float32)
    return np.asarray(np.float32(unit) * magnitudes * np.sign(codes).astype(np.float32), np.float32)


def _codes(x: FloatArray, codes: int, mantissa: int, least: int) -> tuple[np.float32, NDArray[np.int64]]:
    """Unit and signed codes of the nearest numbers, those of numbers that are not zero being at least `least`."""
    magnitudes = _magnitudes(codes, mantissa)
    unit = _unit(float(np.max(np.abs(x), initial=0)), float(magnitudes[-1]))
    ratio = np.abs(x).astype(np.float64) / float(unit)
    found = np.searchsorted((magnitudes[1:] + magnitudes[:-1]) / 2, ratio)
    return unit, np.sign(x).astype(np.int64) * np.maximum(found, least)


def _unit(largest: float, top: float) -> np.float32:
    """That of which the largest number is about `top`."""
    if largest == 0:
        return np.float32(1)
    limits = np.finfo(np.float32)
    fraction, exponent = np.frexp(max(largest / top, float(limits.tiny)))
    unit = float(np.ldexp(np.rint(np.ldexp(fraction, UNIT_BITS)), int(exponent) - UNIT_BITS))
    if unit * top > limits.max:
        unit -= np.ldexp(1.0, int(exponent) - UNIT_BITS)
    return np.float32(unit)


def _scale_codes(scale: Numbers, live: NDArray[np.bool_]) -> tuple[np.float32, int, NDArray[np.int64]]:
    """Of least squared relative error of the live channels, then of all. A scale that is not zero stays so: a dead channel
    can come alive again in training."""
    scale = np.asarray(scale, np.float32)
    if np.any(scale < 0):
        raise ValueError(f"a scale of {scale.min()}; scales are not negative")
    relative = 1 / np.where(scale > 0, scale, 1).astype(np.float64)
    return _best(scale, 256, SCALE_MANTISSAS, 1, (relative * live, relative))


def _bias_codes(bias: Numbers) -> tuple[np.float32, int, NDArray[np.int64]]:
    """Of least squared error."""
    return _best(np.asarray(bias, np.float32), 128, BIAS_MANTISSAS, 0, (np.ones(len(bias)),))


def _best(
    x: FloatArray, codes: int, mantissas: range, least: int, weights: tuple[NDArray[np.float64], ...]
) -> tuple[np.float32, int, NDArray[np.int64]]:
    """Unit, mantissa and codes for which the squared errors under each weighting are least, the first deciding first.
    Numbers that can be held exactly are, since then no error is left."""
    best: tuple[tuple[float, ...], tuple[np.float32, int, NDArray[np.int64]]] | None = None
    for mantissa in reversed(mantissas):
        unit, found = _codes(x, codes, mantissa, least)
        error = _value(unit, mantissa, found).astype(np.float64) - x
        errors = tuple(float(((weight * error) ** 2).sum()) for weight in weights)
        if best is None or errors < best[0]:
            best = errors, (unit, mantissa, found)
    assert best is not None
    return best[1]


def round_to_half(x: NDArray[np.floating]) -> FloatArray:
    """Rounds to what a file holds in 16 bits: one float32 unit (the largest magnitude) times float16 ratios."""
    unit, ratios = halves(x)
    return (np.float32(unit) * ratios.astype(np.float32)).astype(np.float32)


def halves(x: NDArray[np.floating]) -> tuple[np.float32, NDArray[np.float16]]:
    """The unit and the float16 ratios of `round_to_half`."""
    x = np.asarray(x, np.float32)
    unit = np.float32(np.max(np.abs(x), initial=0.0)) or np.float32(1.0)
    return unit, (x / unit).astype(np.float16)
