"""A small case through a real worker process, ours alone: the peers are not needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from harness.cases import Candidate, Case
from harness.engine import Unavailable
from harness.run import Pool, WrongResult, run_case
from harness.timing import Effort
from harness.workloads import ConvChain

EFFORT = Effort(rounds=2, seconds=0.0)
CASE = Case("conv-int8", "portable", ConvChain(16, 6, 3), (), ConvChain(16, 6, 1), 2)


def case(*candidates: Candidate) -> Case:
    return Case(CASE.part, CASE.isa, CASE.workload, candidates, CASE.rest, CASE.parts)


def test_ours_is_checked_and_timed_and_unknown_variants_are_left_out_visibly(tmp_path: Path) -> None:
    said: list[str] = []
    with Pool(tmp_path) as pool:
        wanted = [Candidate("bitplan", "portable", variant) for variant in ("int8", "seven", "int8@u9")]
        records = run_case(case(*wanted), pool, EFFORT, said.append)
    (record,) = records
    assert (record["variant"], record["workload"], record["macs"]) == ("int8", "3x3 16@6", (16 * 3 * 6) ** 2)
    whole, rest = record["calls_ms"]["whole"], record["calls_ms"]["rest"]
    assert record["low_ms"] == pytest.approx((whole["low"] - rest["low"]) / 2)
    assert record["about"]["isa"] == "portable"
    assert record["about"]["error"] <= record["about"]["tolerance"]
    assert ["seven" in text for text in said] == [True, False]
    assert "int8@u9" in said[1]


def test_engines_that_are_not_installed_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.process.find_spec", lambda name: None)
    said: list[str] = []
    with Pool(tmp_path) as pool:
        assert run_case(case(Candidate("openvino", "native", "int8")), pool, EFFORT, said.append) == []
    assert said == ["left out: openvino int8 native: openvino is not installed; pip install 'bitplan[bench]'"]


class FakeWorker:
    def __init__(self, error: float) -> None:
        self.error = error

    def load(self, workload: object, variant: str) -> dict[str, Any]:
        return {"subject": 0, "error": self.error, "tolerance": 0.01, "about": {}}


@pytest.mark.parametrize("error", [0.02, float("nan")])
def test_wrong_results_are_not_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: float) -> None:
    monkeypatch.setattr(Pool, "worker", lambda *key: FakeWorker(error))
    with pytest.raises(WrongResult, match="bitplan int8 portable on 3x3 16@6"), Pool(tmp_path) as pool:
        run_case(case(Candidate("bitplan", "portable", "int8")), pool, EFFORT, print)


def test_levels_that_no_cap_has_are_refused(tmp_path: Path) -> None:
    from harness.process import worker_environment

    with pytest.raises(Unavailable, match="cannot be capped at level 'sse4'"):
        worker_environment("onnxruntime", "sse4", 1, tmp_path)
