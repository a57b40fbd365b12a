"""A short byte string as bytes and copies of what came before: how a file holds the structure of its network.

Tokens, one behind the other, bits filling bytes from the least significant end:

    0, 8 bits                    a byte
    1, 1, length                 a copy from as far back as the copy before it
    1, 0, distance, length       a copy from `distance` bytes back; it may reach into itself

with distance >= 1 and length 1 to 64 in Elias' gamma code: as many zeros as v has bits behind its highest, a one, and those
bits. A compressor of its own and not zlib's, whose sizes differ between versions: the planner counts on them.
"""

from __future__ import annotations

from functools import lru_cache

from bitplan.errors import FileFormatError

LONGEST = 64
"""Bytes of one copy: a file of n bytes cannot ask for more than 35 n bytes of memory."""
CANDIDATES = 32
"""Earlier places that are looked at, the nearest first."""
SEED = 3
"""Bytes that a copy from a new distance has at least."""


@lru_cache(maxsize=64)
def compressed(data: bytes) -> bytes:
    """Tokens of `data`, about as few bits as there can be: the shortest way through all places, each remembering the distance
    of the copy before it on its own shortest way."""
    size = len(data)
    cost, last = [0] + [9 * size + 1] * size, [0] * (size + 1)
    come: list[tuple[int, int]] = [(0, 0)] * (size + 1)  # from which place, and how far back (0: a byte)
    places: dict[bytes, list[int]] = {}
    for at in range(size):
        if cost[at] + 9 < cost[at + 1]:
            cost[at + 1], last[at + 1], come[at + 1] = cost[at] + 9, last[at], (at, 0)
        key = data[at : at + SEED]
        earlier = places.setdefault(key, [])
        longest = 0
        for distance in (last[at], *(at - place for place in reversed(earlier[-CANDIDATES:]))):
            start = 0 if distance == last[at] else longest  # a farther copy pays where it is longer
            length = _common(data, at, distance) if distance else 0
            for end in range(at + start + 1, at + length + 1):
                bits = cost[at] + 2 + _gamma_bits(end - at) + (0 if distance == last[at] else _gamma_bits(distance))
                if bits < cost[end]:
                    cost[end], last[end], come[end] = bits, distance, (at, distance)
            if distance != last[at]:
                longest = max(longest, length)
        earlier.append(at)
    way, end = [], size
    while end:
        way.append((end, *come[end]))
        end = come[end][0]
    return _written(data, way[::-1])


def _common(data: bytes, at: int, distance: int) -> int:
    """How long a copy from `distance` back can be."""
    most = min(LONGEST, len(data) - at)
    for length in range(most):
        if data[at + length] != data[at + length - distance]:
            return length
    return most


def _written(data: bytes, way: list[tuple[int, int, int]]) -> bytes:
    """The tokens of copies (end, start, distance), 0 being a byte."""
    bits, last = _BitWriter(), 0
    for end, start, distance in way:
        if not distance:
            bits.write(0, 1)
            bits.write(data[start], 8)
            continue
        bits.write(3 if distance == last else 1, 2)
        if distance != last:
            bits.gamma(distance)
        bits.gamma(end - start)
        last = distance
    return bits.bytes()


def _gamma_bits(value: int) -> int:
    return 2 * value.bit_length() - 1


def expanded(data: bytes, size: int) -> bytes:
    """The `size` bytes whose tokens fill `data`. Raises FileFormatError where they do not."""
    bits, found, distance = _BitReader(data), bytearray(), 0
    while len(found) < size:
        if not bits.read(1):
            found.append(bits.read(8))
            continue
        if not bits.read(1):
            distance = bits.gamma()
        length = bits.gamma()
        if not 1 <= distance <= len(found) or not length <= min(LONGEST, size - len(found)):
            raise FileFormatError(
                f"the structure copies {length} bytes from {distance} back at byte {len(found)} of {size}"
            )
        for _ in range(length):
            found.append(found[-distance])
    bits.finish()
    return bytes(found)


class _BitWriter:
    def __init__(self) -> None:
        self.value, self.count = 0, 0

    def write(self, value: int, count: int) -> None:
        self.value |= value << self.count
        self.count += count

    def gamma(self, value: int) -> None:
        more = value.bit_length() - 1
        self.write(1 << more, more + 1)
        self.write(value - (1 << more), more)

    def bytes(self) -> bytes:
        return self.value.to_bytes(-(-self.count // 8), "little")


class _BitReader:
    def __init__(self, data: bytes) -> None:
        self.data, self.count, self.at = data, 8 * len(data), 0

    def read(self, count: int) -> int:
        if self.at + count > self.count:
            raise FileFormatError("the structure ends inside a token")
        first, end = self.at // 8, -(-(self.at + count) // 8)
        found = int.from_bytes(self.data[first:end], "little") >> self.at % 8 & (1 << count) - 1
        self.at += count
        return found

    def gamma(self) -> int:
        more = 0
        while not self.read(1):
            more += 1
            if more == 32:
                raise FileFormatError("the structure holds a number of 2^32 or more")
        return 1 << more | self.read(more)

    def finish(self) -> None:
        if self.count - self.at >= 8 or self.read(self.count - self.at):
            raise FileFormatError("the structure has something behind its last token")
