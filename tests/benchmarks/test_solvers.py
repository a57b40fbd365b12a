"""The table of solvers on a recorded problem."""

from __future__ import annotations

from pathlib import Path

import pytest
import solvers

from bitplan.optimizer.builder import ProblemBuilder
from bitplan.optimizer.problem_file import write_problem


@pytest.fixture
def instance(tmp_path: Path) -> Path:
    builder = ProblemBuilder()
    for name in ("a", "b", "c"):
        builder.add_group(name, ["x", "y"])
    builder.add_resource("loss", counted=True)
    builder.add_resource("bytes", counted=True, limit=2)
    for first in range(3):
        builder.add_linear("bytes", first, [0, 1])
        builder.add_linear("loss", first, [5, 0])
        for second in range(first + 1, 3):
            builder.add_pair("loss", first, second, [[4, 1], [0, 0]])
    write_problem(tmp_path / "small.arrow", builder.build("loss"))
    return tmp_path / "small.arrow"


@pytest.mark.parametrize("name", solvers.RUNS)
def test_every_solver_has_a_row_and_none_beats_the_optimum(name: str, instance: Path) -> None:
    found = solvers.record(str(instance), name, time_limit=5.0, seed=0)
    assert found["objective"] >= 5
    if name in ("bitplan", "cp-sat", "highs", "gscip"):
        assert found["objective"] == 5
        assert found["bound"] <= 5
    assert solvers.row(found).startswith(f"| small | {name} | ")
