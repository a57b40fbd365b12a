"""The page of benchmarks holds what the committed results say, and all of them."""

from __future__ import annotations

import pytest
from documented import PEERS, RESULTS, TABLES, peers_rows
from harness.rows import rows, with_bars
from table import BARS, markdown, read
from tables import PAGE, page

if not RESULTS.exists():
    pytest.skip("the results are not in a source distribution", allow_module_level=True)

QUICK = "epyc-zen4/2026-11-22-peers-portable.json"
"""Few rounds; its rows stand in the table beside it alone."""


def test_the_page_is_what_the_results_make() -> None:
    assert PAGE.read_text() == page(), "run python benchmarks/tables.py"


def test_every_result_is_shown() -> None:
    shown = {f"{table.machine}/{name}" for table in TABLES for name in table.files}
    shown |= {f"{PEERS[0]}/{name}" for name in PEERS[1]}
    assert shown == {str(file.relative_to(RESULTS)) for file in RESULTS.glob("*/*.json")} - {QUICK}


def test_every_table_has_rows_and_a_command_of_a_script_that_exists() -> None:
    for table in TABLES:
        assert table.rows()
        if table.command:
            assert (RESULTS.parents[1] / table.command.split()[1]).exists()
    assert peers_rows()


def test_the_table_of_the_kernels_is_what_their_results_make() -> None:
    folder = RESULTS / PEERS[0]
    found = with_bars(rows(*read([folder / name for name in PEERS[1]])), BARS)
    assert markdown(found) in (folder / "2026-11-22-peers.md").read_text()
