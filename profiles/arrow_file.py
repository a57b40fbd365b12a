"""Arrow IPC files of ours: a table, a JSON header in the schema's metadata, and a checksum over the whole file.

The header lies under the metadata key `bitplan` and names `format` and `version` besides what the caller puts in. Its
`checksum` is the SHA-256 of the file's bytes with the checksum's own digits written as zeros, so that a damaged file is
recognised before any of it is interpreted.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from bitplan.atomic_file import write_atomically
from bitplan.errors import FileFormatError

KEY = b"bitplan"
NO_CHECKSUM = b"0" * 64
CHECKSUM = re.compile(rb'("checksum": ")([0-9a-f]{64})(")')

Upgrades = Mapping[int, Callable[[pa.Table], pa.Table]]
"""By an older version: makes a table of the newest one of such a table."""


def write_table(
    path: Path, table: pa.Table, header: Mapping[str, Any], form: str, version: int, compress: bool = False
) -> None:
    """Writes atomically. `header` is anything that JSON can hold; `compress`: the columns, by zstd. OSError (with the path)
    where writing fails."""
    full = {"format": form, "version": version, **header, "checksum": NO_CHECKSUM.decode()}
    table = table.replace_schema_metadata({KEY: json.dumps(full).encode()})
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression="zstd" if compress else None)
    with pa.ipc.new_file(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    data = sink.getvalue().to_pybytes()
    digest = hashlib.sha256(data).hexdigest().encode()
    write_atomically(path, CHECKSUM.sub(rb"\g<1>" + digest + rb"\g<3>", data))


def read_table(
    path: Path, schema: pa.Schema, form: str, version: int, remedy: str, upgrades: Upgrades | None = None
) -> tuple[pa.Table, dict[str, Any]]:
    """Reads what `write_table` wrote, tables of older versions by their `upgrades`. Raises FileFormatError, naming the path
    and the remedy (how to make the file), where there is no such file and for anything else."""

    def refuse(reason: str) -> FileFormatError:
        return FileFormatError(f"{path}: {reason}; delete the file and {remedy}")

    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise FileFormatError(f"the {form} {path} does not exist; {remedy}, or name another file") from error
    except OSError as error:
        raise FileFormatError(
            f"the {form} {path} cannot be read ({error.strerror}); check the path and its permissions"
        ) from error
    found = {match[2] for match in CHECKSUM.finditer(data)}
    if len(found) != 1:
        raise refuse(f"is not a {form} of bitplan, or is damaged")
    blank = CHECKSUM.sub(rb"\g<1>" + NO_CHECKSUM + rb"\g<3>", data)
    if hashlib.sha256(blank).hexdigest().encode() != found.pop():
        raise refuse("is damaged (its checksum does not match)")
    try:
        with pa.ipc.open_file(pa.BufferReader(data)) as reader:
            table = reader.read_all()
        table.validate(full=True)
        header = json.loads(table.schema.metadata[KEY])
    except (pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise refuse(f"is not a readable Arrow file ({error})") from error
    if header.get("format") != form:
        raise refuse(f"is a {header.get('format')!r}, not a {form}")
    found = header.get("version")
    if isinstance(found, int) and found in (upgrades or {}):
        table = (upgrades or {})[found](table)
    elif found != version:
        raise refuse(f"has version {found!r}; this bitplan reads version {version}")
    if not table.schema.equals(schema):
        raise refuse(f"has columns {table.schema.names}, not {schema.names}, or other types")
    if any(column.null_count for column in table.columns):
        raise refuse("has missing values")
    return table, header
