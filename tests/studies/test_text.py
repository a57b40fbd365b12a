"""What people see of a study."""

from __future__ import annotations

import io

from rich.console import Console

from bitplan.optimizer.study.rows import Row
from bitplan.studies.text import trials_table


def test_no_figure_is_cut_in_a_terminal_of_80_columns() -> None:
    settings = {"encodings": "int8+int4+binary+apb", "estimator": "separable", "recovery": "correct+tune", "kept": 0.02}
    found = {"loss": 0.000193847, "latency": 12.3456, "bytes": 1_234_567}
    row = Row(117, "complete", False, {"loss": found["loss"]}, {}, settings, found, seconds=123.45)
    text = io.StringIO()
    Console(file=text, width=80).print(trials_table([row], [row]))
    assert all(figure in text.getvalue() for figure in ("117", "0.000194", "12.346", "1.23 MB", "123.5")), (
        text.getvalue()
    )
