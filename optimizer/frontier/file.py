"""Frontiers as Arrow files: one row per point, its policy as the text of a policy file."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, isfinite, nan
from pathlib import Path
from typing import Any

import pyarrow as pa

from bitplan.errors import FileFormatError, UsageError
from bitplan.optimizer.frontier import Frontier, Point
from bitplan.policies.policy import Policy
from bitplan.policies.policy_file import parse_policy, policy_text
from bitplan.profiles.arrow_file import read_table, write_table
from bitplan.suggest import suggestion

FORM = "frontier"
VERSION = 1
REMEDY = "compute it with `optimize frontier`"


def _field(name: str, kind: pa.DataType, meaning: str, unit: str = "") -> pa.Field:
    return pa.field(name, kind, nullable=False, metadata={"meaning": meaning, **({"unit": unit} if unit else {})})


SCHEMA = pa.schema(
    [
        _field("name", pa.string(), "what `optimize realise FILE#NAME` calls the point"),
        _field("uniform", pa.string(), "the variant of all layers (or as many as may have it); empty for other points"),
        _field("dominated_by", pa.string(), "a point no worse in loss, latency and bytes and better in one; or empty"),
        _field("efficient", pa.bool_(), "proven that no policy within the targets dominates the point"),
        _field("limit_bytes", pa.float64(), "the largest file under which the certificate holds; inf for none", "B"),
        _field("limit_latency", pa.float64(), "the longest inference under which it holds; inf for none", "ms"),
        _field("file_bytes", pa.int64(), "bytes of the artifact's file", "B"),
        _field("latency", pa.float64(), "predicted median of one inference; nan without a device profile", "ms"),
        _field("loss", pa.float64(), "predicted loss increase", "loss_scale of the header"),
        _field("resident_bytes", pa.int64(), "weights and arena in memory", "B"),
        _field("full_precision_weights", pa.int64(), "weights kept at 16 or 32 bits", "weights"),
        _field("loss_bound", pa.float64(), "no policy within the limits has less loss; nan: not known", "as loss"),
        _field("gap", pa.float64(), "the program's (objective - bound) / objective; nan: not known", "share"),
        _field("status", pa.string(), "optimal, feasible (stopped early) or given (uniform)"),
        _field("seconds", pa.float64(), "spent on the point by the solvers", "s"),
        _field("solver", pa.string(), "the solvers that had a part in it"),
        _field("policy", pa.string(), "the policy as the text of a policy file (JSON)"),
    ]
)


def write_frontier(path: Path, frontier: Frontier) -> None:
    """Writes atomically. Raises OSError, with the path, where that fails."""
    rows = [_row(point) for point in frontier.points]
    columns = [pa.array([row[field.name] for row in rows], field.type) for field in SCHEMA]
    header = {"loss_scale": frontier.scale, "finished": frontier.finished, "seconds": frontier.seconds}
    write_table(path, pa.Table.from_arrays(columns, schema=SCHEMA), header, FORM, VERSION)


def read_frontier(path: Path) -> Frontier:
    """Raises FileFormatError, with the path and the remedy, for anything that `write_frontier` has not written."""
    table, header = read_table(path, SCHEMA, FORM, VERSION, REMEDY)
    try:
        points = tuple(
            Point(
                row["name"],
                parse_policy(row["policy"].encode(), f"{path}#{row['name']}"),
                row["efficient"],
                row["uniform"],
                row["dominated_by"],
            )
            for row in table.to_pylist()
        )
        return Frontier(
            points,
            str(header.get("loss_scale") or header["metric"]),
            bool(header["finished"]),
            float(header["seconds"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise FileFormatError(f"{path}: does not hold together ({error}); delete the file and {REMEDY}") from error


def read_point(path: Path, name: str) -> Policy:
    """The policy of a point. Raises UsageError, with the names that there are, for an unknown one, and FileFormatError
    as `read_frontier`."""
    points = read_frontier(path).points
    for point in points:
        if point.name == name:
            return point.policy
    raise UsageError(f"{path} has no point {name!r}; {suggestion(name, [p.name for p in points], 'its points')}")


def _row(point: Point) -> dict[str, Any]:
    policy = point.policy
    predicted, limits, certificate = policy.predicted, policy.targets, policy.certificate
    return {
        "name": point.name,
        "uniform": point.uniform,
        "dominated_by": point.dominated_by,
        "efficient": point.efficient,
        "limit_bytes": inf if limits.bytes is None else float(limits.bytes),
        "limit_latency": inf if limits.latency is None else 1e3 * limits.latency,
        "file_bytes": predicted["file_bytes"],
        "latency": _known(predicted["latency_ms"]),
        "loss": _known(predicted["loss"]),
        "resident_bytes": predicted["resident_bytes"],
        "full_precision_weights": predicted["full_precision_weights"],
        "loss_bound": _known(certificate.bound),
        "gap": _known(certificate.gap),
        "status": certificate.status,
        "seconds": certificate.seconds,
        "solver": certificate.solver,
        "policy": policy_text(policy, point.name),
    }


def _known(value: float | None) -> float:
    return nan if value is None else float(value)


def summary(points: Sequence[Point]) -> list[dict[str, Any]]:
    """The points as plain JSON: every column but the policy, nan and inf as null."""
    rows = [_row(point) for point in points]
    return [
        {
            key: None if isinstance(value, float) and not isfinite(value) else value
            for key, value in row.items()
            if key != "policy"
        }
        for row in rows
    ]
