"""The trials of a study as plain rows, which of them is best, and files of them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from bitplan.atomic_file import write_atomically
from bitplan.errors import UsageError
from bitplan.optimizer.study.course import ERROR, INFEASIBLE, PLANNER, WORKER

COMPLETE = "complete"
FORM, VERSION = "study trials", 1


@dataclass(frozen=True)
class Row:
    """A trial. `values`: of the objectives, by name, where it is complete; `attributes`: what carrying it out came to;
    `reason`: why it has no values."""

    number: int
    state: str
    planner: bool
    values: Mapping[str, float]
    constraints: Mapping[str, float]
    settings: Mapping[str, Any]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""
    seconds: float | None = None

    @property
    def counts(self) -> bool:
        """Whether it is complete and keeps all limits."""
        return self.state == COMPLETE and all(value <= 0 for value in self.constraints.values())

    def dominates(self, other: Row) -> bool:
        """No worse in every objective, and better in one."""
        pairs = [(self.values[name], other.values[name]) for name in self.values]
        return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)

    def to_json(self) -> dict[str, Any]:
        return {
            "number": self.number,
            "state": self.state,
            "planner": self.planner,
            "feasible": self.counts,
            "values": dict(self.values),
            "constraints": dict(self.constraints),
            "settings": dict(self.settings),
            **self.attributes,
            "reason": self.reason or None,
            "seconds": self.seconds,
        }


def rows_of(study: Any, objectives: Sequence[str]) -> list[Row]:
    """All trials of an Optuna study, in their order."""
    return [row_of(trial, objectives) for trial in study.get_trials(deepcopy=False)]


def row_of(trial: Any, objectives: Sequence[str]) -> Row:
    attributes = {
        name: value for name, value in trial.user_attrs.items() if name not in (PLANNER, WORKER, ERROR, INFEASIBLE)
    }
    state = trial.state.name.lower()
    duration = trial.duration
    reason = trial.user_attrs.get(INFEASIBLE) or trial.user_attrs.get(ERROR)
    if not reason and state == "pruned":
        reason = f"its loss at step {trial.last_step} was worse than that of others"
    if not reason and state == "fail":
        reason = "its worker was lost; another trial repeats it"
    return Row(
        trial.number,
        state,
        bool(trial.user_attrs.get(PLANNER)),
        dict(zip(objectives, trial.values, strict=True)) if state == COMPLETE else {},
        dict(trial.constraints),
        dict(trial.params),
        attributes,
        reason or "",
        None if duration is None else duration.total_seconds(),
    )


def best_rows(rows: Sequence[Row]) -> list[Row]:
    """With one objective the best trial, with several those that none dominates; of equals the first. Empty where no trial
    is complete and keeps the limits."""
    found: list[Row] = []
    for row in sorted((row for row in rows if row.counts), key=lambda row: (*row.values.values(), row.number)):
        if not any(other.dominates(row) or other.values == row.values for other in found):
            found.append(row)
    return found


def write_rows(path: Path, rows: Sequence[Row], objectives: Sequence[str]) -> None:
    """Writes .csv, .json or .arrow, by the ending, atomically. Raises UsageError for another one."""
    if path.suffix == ".json":
        write_atomically(path, json.dumps([row.to_json() for row in rows], indent=1).encode())
        return
    table = _flat(rows, objectives)
    if path.suffix == ".csv":
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(table)
        writer.writerows(zip(*table.values(), strict=True))
        write_atomically(path, text.getvalue().encode())
    elif path.suffix == ".arrow":
        arrays = {name: _array(values) for name, values in table.items()}
        sink = pa.BufferOutputStream()
        arrow = pa.table(arrays)
        with pa.ipc.new_file(sink, arrow.schema) as writer:
            writer.write_table(arrow)
        write_atomically(path, sink.getvalue().to_pybytes())
    else:
        raise UsageError(f"{path}: trials are written as .csv, .json or .arrow; choose one of these endings")


def _flat(rows: Sequence[Row], objectives: Sequence[str]) -> dict[str, list[Any]]:
    """By column: plain numbers and texts, or None."""
    settings = dict.fromkeys(name for row in rows for name in row.settings)
    limits = dict.fromkeys(name for row in rows for name in row.constraints)
    others = dict.fromkeys(name for row in rows for name in row.attributes if name not in objectives)
    columns: dict[str, list[Any]] = {
        "number": [row.number for row in rows],
        "state": [row.state for row in rows],
        "planner": [row.planner for row in rows],
        "feasible": [row.counts for row in rows],
        "seconds": [row.seconds for row in rows],
    }
    for name in objectives:
        columns[name] = [row.values.get(name, row.attributes.get(name)) for row in rows]
    for name in others:
        columns[name] = [_cell(row.attributes.get(name)) for row in rows]
    for name in limits:
        columns[f"limit:{name}"] = [row.constraints.get(name) for row in rows]
    for name in settings:
        columns[f"knob:{name}"] = [row.settings.get(name) for row in rows]
    columns["reason"] = [row.reason for row in rows]
    return columns


def _cell(value: Any) -> Any:
    return value if value is None or isinstance(value, str | int | float) else json.dumps(value)


def _array(values: Sequence[Any]) -> pa.Array:
    kinds = {type(value) for value in values if value is not None}
    if str in kinds and len(kinds) > 1:
        return pa.array([None if value is None else str(value) for value in values], pa.string())
    return pa.array([float(value) if kinds == {int, float} and value is not None else value for value in values])
