"""The entropy-coded levels of a layer (kernels/FORMAT.md): a head, tables, and range-coded symbols.

u8   0: all levels are zero, nothing follows; else 128 + log2 of lanes + 8 (classes - 1) + 64 where lengths are listed
u8   top, the largest magnitude
u16  mean that activities start from, then classes - 1 ascending thresholds u8; both only with several classes
lengths of every class: one by one, or the numbers of a law (bitplan/encodings/frequencies.py)
u32 x lanes states, then u16 words
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitplan.encodings import rans
from bitplan.encodings.activity import ACTIVITIES, CAP, LOGARITHM, UNIT, activities, column_gain, row_gain, start_mean
from bitplan.encodings.frequencies import TOTAL, Tables, best_tables, law_bytes
from bitplan.errors import FileFormatError

MAX_LANES = 32
BYTES_PER_LANE = 1024
"""A lane costs about three bytes; with so many behind each they do not matter."""
CODED, LISTED = 128, 64

Levels = NDArray[np.int8]
"""[out, K], of -127..127."""


@dataclass(frozen=True)
class Model:
    """How a layer's levels are coded."""

    lanes: int
    start: int
    tables: Tables

    def classes(self, levels: Levels) -> NDArray[np.int64]:
        """The class of activity of every weight, [out, K]."""
        if not self.tables.thresholds:
            return np.zeros(levels.shape, np.int64)
        by_activity = np.searchsorted(self.tables.thresholds, np.arange(ACTIVITIES), side="right")
        return np.asarray(by_activity[activities(levels, self.start, self.lanes)])

    def head(self) -> bytes:
        tables = self.tables
        kinds = CODED + LISTED * tables.are_listed + 8 * len(tables.thresholds) + self.lanes.bit_length() - 1
        several = struct.pack("<H", self.start) + bytes(tables.thresholds) if tables.thresholds else b""
        return bytes([kinds, tables.top]) + several + b"".join(tables.descriptions)


def lanes_for(rows: int, capacity: int) -> int:
    """The lanes of a layer of so many rows and at most so many bytes: a power of two."""
    return 1 << min(rows, MAX_LANES, max(capacity // BYTES_PER_LANE, 1)).bit_length() - 1


def counts_by_activity(levels: Levels, found: NDArray[np.uint8]) -> NDArray[np.int64]:
    """How often each magnitude occurs at each activity, [activities, top + 1]."""
    magnitudes = np.abs(levels.astype(np.int64))
    top = int(magnitudes.max())
    cells = found.astype(np.int64) * (top + 1) + magnitudes
    return np.bincount(cells.ravel(), minlength=ACTIVITIES * (top + 1)).reshape(ACTIVITIES, top + 1)


def best_model(levels: Levels, lanes: int) -> Model:
    """The model of fewest bytes for levels of which one at least is not zero."""
    start = start_mean(levels)
    return Model(lanes, start, best_tables(counts_by_activity(levels, activities(levels, start, lanes))))


def encode(levels: Levels, lanes: int) -> bytes:
    """The coded levels; deterministic."""
    if not levels.any():
        return b"\0"
    model = best_model(levels, lanes)
    found = model.tables.frequencies
    starts, sizes = slots(found)
    cells = model.classes(levels) * sizes.shape[1] + levels + model.tables.top
    in_steps = [to_steps(table.ravel()[cells], model.lanes) for table in (starts, sizes)]
    states, words = rans.encode(in_steps[0], in_steps[1], model.lanes)
    return model.head() + states.astype("<u4").tobytes() + words.astype("<u2").tobytes()


def slots(found: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where the levels' slots begin and how many they are, [classes, 2 top + 1] from level -top on: the slots of 0 come
    first, then those of 1, -1, 2, -2, ..."""
    top = found.shape[1] - 1
    order = np.array([top] + [top + sign * m for m in range(1, top + 1) for sign in (1, -1)])
    sizes = np.concatenate([found[:, :0:-1], found], 1)
    starts = np.empty_like(sizes)
    starts[:, order] = np.cumsum(sizes[:, order], 1) - sizes[:, order]
    return starts, sizes


def to_steps(values: NDArray[np.int64], lanes: int) -> NDArray[np.int64]:
    """[out, K] in the order of coding, [steps, lanes]; zeros where a lane has no row left."""
    rows, columns = values.shape
    padded = np.zeros((-(-rows // lanes) * lanes, columns), np.int64)
    padded[:rows] = values
    return padded.reshape(-1, lanes, columns).transpose(0, 2, 1).reshape(-1, lanes)


def decode(data: bytes, rows: int, columns: int) -> Levels:
    """The inverse of `encode`, from the stream and zeros behind it. Raises FileFormatError, naming the rule, where the
    data is of no other form."""
    if data[:1] == b"\0":
        _require(not any(data), "bytes behind a layer of zeros")
        return np.zeros((rows, columns), np.int8)
    model, data = read_head(data)
    lanes = model.lanes
    _require(lanes <= rows, f"{lanes} lanes for {rows} rows")
    _require(len(data) >= 4 * lanes, "it ends inside its states")
    states = np.frombuffer(data, "<u4", lanes).astype(np.int64)
    _require(bool((states >= rans.LOWEST).all()), "a state below 2^16")
    words = np.frombuffer(data, "<u2", (len(data) - 4 * lanes) // 2, 4 * lanes).astype(np.int64)
    decoder = rans.Decoder(states, words)
    try:
        levels = _decode_rows(model, decoder, rows, columns)
    except EOFError:
        raise FileFormatError("coded levels: their words end too early") from None
    _require(bool((decoder.states == rans.LOWEST).all()), "a last state that is not 2^16")
    _require(not any(data[4 * lanes + 2 * decoder.used :]), "bytes behind the last word")
    return levels


def _decode_rows(model: Model, decoder: rans.Decoder, rows: int, columns: int) -> Levels:
    tables, lanes = model.tables, model.lanes
    starts, sizes = slots(tables.frequencies)
    values = np.arange(-tables.top, tables.top + 1)
    symbols = np.empty((len(sizes), TOTAL), np.int64)
    for symbol, start, size in zip(symbols, starts, sizes, strict=True):
        order = np.argsort(start + (size == 0) * TOTAL, kind="stable")
        symbol[:] = np.repeat(order, size[order])
    by_activity = np.searchsorted(tables.thresholds, np.arange(ACTIVITIES), side="right")
    levels = np.zeros((rows, columns), np.int8)
    column_means = np.full(columns, model.start, np.int64)
    for first in range(0, rows, lanes):
        active = min(lanes, rows - first)
        means = np.full(active, model.start, np.int64)
        for column in range(columns):
            group = by_activity[LOGARITHM[means] + LOGARITHM[column_means[column]]]
            symbol = symbols[group, decoder.slots(active)]
            decoder.take(starts[group, symbol], sizes[group, symbol])
            level = values[symbol]
            levels[first : first + active, column] = level
            magnitude = np.minimum(np.abs(level), CAP) * UNIT
            means += (magnitude - means) * row_gain(column) >> 16
            column_means[column] += (magnitude.sum() - active * column_means[column]) * column_gain(first, active) >> 16
    return levels


def read_head(data: bytes) -> tuple[Model, bytes]:
    """The model, and what lies behind it. Raises FileFormatError."""
    _require(len(data) >= 2, "it ends inside its head")
    kinds, top = data[0], data[1]
    lanes, classes = 1 << (kinds & 7), (kinds >> 3 & 7) + 1
    _require(kinds >= CODED and lanes <= MAX_LANES, f"an unknown model {kinds}")
    _require(1 <= top <= 127, f"a largest magnitude of {top}; expected 1 to 127")
    several, each = classes + 1 if classes > 1 else 0, top + 1 if kinds & LISTED else law_bytes(top)
    end = 2 + several + classes * each
    _require(len(data) >= end, "it ends inside its tables")
    start = 0
    thresholds: tuple[int, ...] = ()
    if several:
        start, thresholds = int.from_bytes(data[2:4], "little"), tuple(data[4 : 3 + classes])
        _require(start <= CAP * UNIT, f"a mean of {start}; expected at most {CAP * UNIT}")
        ascending = all(a < b for a, b in zip((0, *thresholds), thresholds, strict=False))
        _require(
            ascending and thresholds[-1] < ACTIVITIES, f"thresholds that do not ascend within 1 to {ACTIVITIES - 1}"
        )
    descriptions = tuple(data[2 + several + c * each : 2 + several + (c + 1) * each] for c in range(classes))
    return Model(lanes, start, Tables(top, thresholds, bool(kinds & LISTED), descriptions)), data[end:]


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise FileFormatError(f"coded levels: {otherwise}")
