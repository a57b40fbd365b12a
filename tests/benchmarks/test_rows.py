"""Figures of the table from records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from harness.rows import Records, Row, better, geometric_mean, rows, with_bars
from table import BARS, markdown


def record(engine: str, variant: str, low: float, workload: str = "3x3 64@56", **other: Any) -> dict[str, Any]:
    return {
        "part": "conv-int8",
        "isa": "avx2",
        "workload": workload,
        "engine": engine,
        "variant": variant,
        "threads": 1,
        "low_ms": low,
        "median_ms": 2 * low,
        "macs": 1000,
        **other,
    }


def by_key(found: list[Row]) -> dict[str, float]:
    return {row.key: row.low for row in found}


def test_convolutions_are_compared_by_geometric_mean_over_shapes() -> None:
    records = [
        record("bitplan", "int8", 2.0),
        record("openvino", "int8", 1.0),
        record("bitplan", "int8", 2.0, "3x3 128@28"),
        record("openvino", "int8", 4.0, "3x3 128@28"),
    ]
    assert by_key(rows(Records(records))) == {"conv-int8/avx2/openvino": pytest.approx(1.0)}


def test_no_mean_over_fewer_shapes_than_were_timed() -> None:
    records = [record("bitplan", "int8", 2.0), record("openvino", "int8", 1.0), record("bitplan", "int8", 2.0, "other")]
    assert rows(Records(records)) == []
    assert geometric_mean([]) is None


def test_low_bit_weights_are_compared_with_the_better_int8() -> None:
    here = {"part": "conv-weights"}
    records = [
        record("bitplan", "int8", 4.0, **here),
        record("onnxruntime", "int8", 2.0, **here),
        record("bitplan", "ternary", 1.0, **here),
    ]
    assert by_key(rows(Records(records))) == {"conv-weights/avx2/ternary": pytest.approx(0.5)}
    assert better(None, None) is None


def test_kept_weights_cost_what_they_add() -> None:
    here = {"part": "apb"}
    records = [record("bitplan", "apb:kept=0.02", 1.25, **here), record("bitplan", "binary", 1.0, **here)]
    assert by_key(rows(Records(records))) == {"apb/avx2/binary": pytest.approx(0.25)}


def test_products_are_multiples_of_the_peak_in_multiply_adds_a_second() -> None:
    here = {"part": "products"}
    records = [
        record("peak", "int8", 1.0, "peak", macs=100, **here),
        record("bitplan", "int8", 2.0, "1x1 512@16", macs=500, **here),
    ]
    assert by_key(rows(Records(records))) == {"products/avx2/int8/1x1 512@16": pytest.approx(2.5)}


def test_memory_and_threads() -> None:
    records = [
        record("bitplan", "int8", 3.0, part="threads"),
        record("bitplan", "int8", 2.0, part="threads", threads=2),
    ]
    memory = [{"engine": "bitplan", "added_pss": 1}, {"engine": "openvino", "added_pss": 4}]
    found = by_key(rows(Records(records), memory))
    assert found == {"threads/avx2/int8/bitplan": pytest.approx(1.5), "memory/any/openvino": pytest.approx(0.25)}


def test_the_later_of_two_records_counts() -> None:
    records = [record("bitplan", "int8", 9.0), record("openvino", "int8", 1.0), record("bitplan", "int8", 3.0)]
    assert by_key(rows(Records(records))) == {"conv-int8/avx2/openvino": pytest.approx(3.0)}


def test_bars_by_pattern(tmp_path: Path) -> None:
    file = tmp_path / "bars.json"
    file.write_text(json.dumps({"a/*/x": {"bar": 1.0, "stretch": 0.5}, "b/*": {"bar": 2.0}}))
    missed, met, higher, free = with_bars(
        [
            Row("a/avx2/x", "", 1.1, 1.0),
            Row("a/any/x", "", 0.4, 1),
            Row("b/1", "", 2.5, 1, higher=True),
            Row("c", "", 1, 1),
        ],
        file,
    )
    assert (missed.met, missed.stretch_met) == (False, False)
    assert (met.met, met.stretch_met) == (True, True)
    assert (higher.met, higher.stretch_met) == (True, None)
    assert free.met is None


def test_the_table_names_what_was_missed_and_the_command() -> None:
    row = Row("conv-int8/avx2/openvino", "int8 conv", 1.25, 1.5, bar=1.0)
    (line,) = markdown([row]).splitlines()[2:]
    assert "≤ 1" in line
    assert "1.25 (1.5) **missed**" in line
    assert "against_peers.py --only conv-int8 --isa avx2" in line


def test_the_bars_in_the_tree_are_readable() -> None:
    assert with_bars([Row("networks/avx2/resnet18@224/file", "", 0.2, 0.2)], BARS)[0].met
