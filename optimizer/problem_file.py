"""Recorded problems: one Arrow file each, so that solvers can be compared without networks and profiles.

A row per table: the linear costs of every group, the pair costs and the forbidden pairs of every link. Groups, options,
resources and limits stand in the header. See profiles/arrow_file.py for header and checksum.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from bitplan.errors import FileFormatError
from bitplan.optimizer.problem import Group, Integers, Link, Mask, Problem, Resource, frozen
from bitplan.profiles.arrow_file import read_table, write_table

FORM = "problem"
VERSION = 1
REMEDY = "record the problem with `write_problem`"
FORBIDDEN = ""
"""Stands in place of a resource's name in the rows of forbidden pairs."""


def _field(name: str, kind: pa.DataType, meaning: str) -> pa.Field:
    return pa.field(name, kind, nullable=False, metadata={"meaning": meaning})


SCHEMA = pa.schema(
    [
        _field("resource", pa.string(), "name of the resource; empty for forbidden pairs"),
        _field("first", pa.int32(), "number of a group"),
        _field("second", pa.int32(), "number of a later group; -1 where the costs are the first one's own"),
        _field(
            "costs",
            pa.binary(),
            "zlib of little-endian int64: by option of first, then of second; 1 for a forbidden pair, 0 for an allowed one",
        ),
    ]
)


def write_problem(path: Path, problem: Problem, origin: str = "") -> None:
    """Writes atomically; `origin` says where the problem comes from. Raises OSError, with the path, where that fails."""
    rows: list[tuple[str, int, int, Integers]] = []
    for resource in problem.resources:
        rows += [(resource.name, g, -1, table) for g, table in enumerate(resource.linear)]
        rows += [(resource.name, a, b, table) for (a, b), table in sorted(resource.pairs.items())]
    rows += [(FORBIDDEN, a, b, mask.astype(np.int64)) for (a, b), mask in sorted(problem.forbidden.items())]
    packed = [zlib.compress(np.ascontiguousarray(table, "<i8").tobytes(), 9) for *_, table in rows]
    columns = [*([row[column] for row in rows] for column in range(3)), packed]
    arrays = [pa.array(column, f.type) for column, f in zip(columns, SCHEMA, strict=True)]
    header = {
        "origin": origin,
        "objective": problem.objective,
        "groups": [[group.name, list(group.options)] for group in problem.groups],
        "resources": [
            {
                "name": r.name,
                "target": r.target,
                "unit": r.unit,
                "constant": r.constant,
                "limit": r.limit,
                "resolution": r.resolution,
                "asked": r.asked,
            }
            for r in problem.resources
        ],
    }
    write_table(path, pa.Table.from_arrays(arrays, schema=SCHEMA), header, FORM, VERSION)


def read_problem(path: Path) -> Problem:
    """Raises FileFormatError, with the path and the remedy, for anything that `write_problem` has not written."""
    table, header = read_table(path, SCHEMA, FORM, VERSION, REMEDY)
    try:
        return _problem(table, header)
    except (KeyError, TypeError, ValueError, IndexError, zlib.error) as error:
        raise FileFormatError(f"{path}: does not hold together ({error}); delete the file and {REMEDY}") from error


def _problem(table: pa.Table, header: dict[str, Any]) -> Problem:
    groups = tuple(Group(name, tuple(options)) for name, options in header["groups"])
    sizes = [len(group.options) for group in groups]
    linear: dict[str, dict[int, Integers]] = {entry["name"]: {} for entry in header["resources"]}
    pairs: dict[str, dict[Link, Integers]] = {entry["name"]: {} for entry in header["resources"]}
    forbidden: dict[Link, Mask] = {}
    for row in table.to_pylist():
        name, a, b = row["resource"], row["first"], row["second"]
        if not (0 <= a < len(sizes) and -1 <= b < len(sizes)):
            raise ValueError(f"a row of resource {name!r} names groups {a} and {b} of {len(sizes)}")
        shape = (sizes[a],) if b < 0 else (sizes[a], sizes[b])
        costs = np.frombuffer(zlib.decompress(row["costs"]), "<i8").astype(np.int64).reshape(shape)
        if name == FORBIDDEN:
            forbidden[a, b] = frozen(costs != 0)
        elif b < 0:
            linear[name][a] = frozen(costs)
        else:
            pairs[name][a, b] = frozen(costs)
    resources = tuple(
        Resource(
            entry["name"],
            tuple(linear[entry["name"]][g] for g in range(len(groups))),
            pairs[entry["name"]],
            int(entry["constant"]),
            None if entry["limit"] is None else int(entry["limit"]),
            entry["target"],
            float(entry["resolution"]),
            entry["unit"],
            entry["asked"],
        )
        for entry in header["resources"]
    )
    return Problem(groups, resources, header["objective"], forbidden)


__all__ = ["read_problem", "write_problem"]
