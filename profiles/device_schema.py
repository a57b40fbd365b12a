"""The columns of a device profile's Arrow file; every field says what it means and in which unit (docs/device-profiles.md)."""

from __future__ import annotations

import pyarrow as pa

FORMAT = "device profile"
VERSION = 3
REMEDY = "measure it with `optimize profile`"

KEY_COLUMNS = ("signature", "variant", "kernel", "output", "threads", "batch")
LATENCY_COLUMNS = ("median", "low", "high", "samples", "estimated")


def _field(name: str, kind: pa.DataType, meaning: str, unit: str = "") -> pa.Field:
    return pa.field(name, kind, nullable=False, metadata={"meaning": meaning} | ({"unit": unit} if unit else {}))


SCHEMA = pa.schema(
    [
        _field(
            "signature", pa.string(), "operation, shapes and parameters: conv2d i16x28x28 o32x14x14 kernel=[3,3] ..."
        ),
        _field(
            "variant", pa.string(), "weight encoding and activations read: int4, binary@u2; none/f32 without weights"
        ),
        _field("kernel", pa.string(), "compute kernel of a layer: floats, bytes, bits, lookup; else empty"),
        _field("output", pa.string(), "activation formats that are written: u8, f32+u2"),
        _field("threads", pa.int32(), "threads that run the step", "threads"),
        _field("batch", pa.int32(), "images per run", "images"),
        _field(
            "median", pa.float64(), "the share of the step in a median run of its network; estimated: most likely", "s"
        ),
        _field("low", pa.float64(), "10 % quantile of the runs; estimated: of the model's errors", "s"),
        _field("high", pa.float64(), "90 % quantile of the runs; estimated: of the model's errors", "s"),
        _field(
            "samples",
            pa.int64(),
            "runs that were timed; estimated: steps that the model was fitted on",
            "runs or steps",
        ),
        _field("estimated", pa.bool_(), "true: not timed, but estimated from the timed steps"),
    ]
)


def with_estimated(table: pa.Table) -> pa.Table:
    """A table of version 2, in which every step was timed, as one of version 3."""
    return table.append_column(SCHEMA.field("estimated"), pa.array([False] * table.num_rows))


UPGRADES = {2: with_estimated}
