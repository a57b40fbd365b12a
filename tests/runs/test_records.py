"""Records and logs of run folders, and the list of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from bitplan.config import Config, merge
from bitplan.errors import FileFormatError, InfeasibleError, UsageError
from bitplan.progress import Reporter
from bitplan.runs.figures import figures_of
from bitplan.runs.listing import Found, list_runs
from bitplan.runs.log import LOG, at_work
from bitplan.runs.record import FILE, MOST, Record, read_records
from bitplan.runs.recording import Asked, recorded
from bitplan.runs.secrets import redacted
from bitplan.runs.text import runs_table, targets_text

LOGIN = "postgresql://me:hunter2@host/db?sslpassword=tiger&x=1"


def asked(config: Config | None = None, command: str = "plan", *line: str) -> Asked:
    return Asked(command, ["optimize", command, *line], {"points": {"value": 9, "from": "default"}}, config or Config())


def run(folder: Path, error: BaseException | None = None, **result: Any) -> Record:
    """A command that says something in a run folder and ends; its record."""
    reporter = Reporter(quiet=True)
    try:
        with recorded(folder, asked(), reporter):
            reporter.say("[bold]said[/]")
            reporter.detail("a detail")
            if result:
                reporter.result(result)
            if error is not None:
                raise error
    except BaseException as raised:  # noqa: BLE001 - any that a command may end with
        assert raised is error
    return read_records(folder)[-1]


@pytest.mark.parametrize(
    ("error", "result", "status", "code", "text"),
    [
        (None, {}, "done", 0, None),
        (None, {"status": "planned"}, "planned", 0, None),
        (typer.Exit(0), {"status": "met"}, "met", 0, None),
        (typer.Exit(4), {"status": "missed"}, "missed", 4, None),
        (UsageError("not so"), {}, "failed", 2, "not so"),
        (InfeasibleError("too small"), {}, "infeasible", 3, "too small"),
        (KeyboardInterrupt(), {}, "interrupted", 130, "interrupted"),
        (ValueError("a bug"), {}, "failed", 1, "ValueError: a bug"),
        (OSError(28, "No space left", "x"), {}, "failed", 1, "No space left"),
    ],
)
def test_a_record_says_how_the_command_ended(
    tmp_path: Path, error: BaseException | None, result: dict[str, Any], status: str, code: int, text: str | None
) -> None:
    found = run(tmp_path / "out", error, **result)
    assert (found.status, found.exit_code) == (status, code)
    assert found.error is None if text is None else text in str(found.error)
    assert found.begun <= str(found.ended)
    assert list_runs(tmp_path)[0].status == status


def test_a_record_is_there_from_the_beginning_with_the_configuration_and_where_it_is_from(tmp_path: Path) -> None:
    config = merge({"budget": "2MB"}, {"seed": 3}, "my.yaml")
    folder = tmp_path / "out"
    with recorded(folder, asked(config, "frontier", "--budget", "2MB"), Reporter(quiet=True)):
        (record,) = read_records(folder)
        assert (record.status, record.ended, record.process) == ("running", None, os.getpid())
        assert list_runs(tmp_path)[0].status == "running"
        assert at_work(folder)
    assert not at_work(folder)
    assert record.options["budget"] == {"value": "2MB", "from": "command line"}
    assert record.options["seed"] == {"value": 3, "from": "my.yaml"}
    assert record.options["threads"] == {"value": 1, "from": "default"}
    assert record.arguments == {"points": {"value": 9, "from": "default"}}
    assert record.command_line == ["optimize", "frontier", "--budget", "2MB"]
    assert {"bitplan", "python", "numpy"} <= set(record.versions)
    assert record.machine["cores"] == os.cpu_count()


def test_a_log_holds_what_was_said_and_goes_on_with_the_next_command(tmp_path: Path) -> None:
    run(tmp_path)
    first = (tmp_path / LOG).read_text()
    assert first.count("\n") == 4
    assert "Z said\n" in first and "Z detail: a detail\n" in first
    run(tmp_path, UsageError("not so"))
    both = (tmp_path / LOG).read_text()
    assert both.startswith(first) and "error: not so" in both[len(first) :]
    assert [one.status for one in read_records(tmp_path)] == ["done", "failed"]
    (shown,) = list_runs(tmp_path)
    assert (shown.status, shown.commands) == ("done", ("plan", "plan"))  # what could not begin is passed over


def test_only_the_newest_commands_are_kept(tmp_path: Path) -> None:
    for _ in range(MOST + 2):
        last = run(tmp_path)
    records = read_records(tmp_path)
    assert len(records) == MOST
    assert records[-1] == last


def test_no_password_is_written_down(tmp_path: Path) -> None:
    reporter = Reporter(quiet=True)
    config = Config(cluster="tcp://me:hunter2@host:1", backend="dask")
    with pytest.raises(UsageError), recorded(tmp_path, asked(config, "study", "--storage", LOGIN), reporter):
        reporter.warn(f"{LOGIN} is slow")
        raise UsageError(f"{LOGIN!r} cannot be opened")
    for name in (FILE, LOG):
        text = (tmp_path / name).read_text()
        assert "me:***@host" in text
        assert "hunter2" not in text and "tiger" not in text
    assert redacted("http://host:80/a@b C:\\x?y") == "http://host:80/a@b C:\\x?y"


def test_nothing_of_the_environment_is_written_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_TOKEN", "a-secret-of-the-environment")
    run(tmp_path)
    assert "a-secret-of-the-environment" not in (tmp_path / FILE).read_text() + (tmp_path / LOG).read_text()


KILLED = """
import sys, time
from pathlib import Path
from bitplan.config import Config
from bitplan.progress import Reporter
from bitplan.runs.recording import Asked, recorded
with recorded(Path(sys.argv[1]), Asked("profile", ["optimize", "profile"], {}, Config()), Reporter(quiet=True)):
    print("begun", flush=True)
    time.sleep(60)
"""


def test_a_command_that_was_killed_counts_as_interrupted(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None and child.stdout.readline() == "begun\n"
    assert list_runs(tmp_path)[0].status == "running"
    child.send_signal(signal.SIGKILL)
    child.communicate()
    assert list_runs(tmp_path)[0].status == "interrupted"
    assert [one.status for one in read_records(tmp_path)] == ["running"]  # nobody was there to write
    run(tmp_path)
    assert [one.status for one in read_records(tmp_path)] == ["interrupted", "done"]


def test_a_folder_that_cannot_be_written_does_not_keep_the_command_from_running(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    ran = False
    with recorded(tmp_path / "file" / "out", asked(), Reporter(quiet=True)):
        ran = True
    assert ran


RECORD = b'"id": "a", "command": "plan", "command_line": [], "cwd": "/", "process": 1, "begun": "2026-01-01T00:00:00Z"'


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'{"format": "bitplan run", "version": 2, "commands": []}',
        b'{"format": "bitplan run", "version": 1, "commands": [{}]}',
        b'{"format": "bitplan run", "version": 1, "commands": [3]}',
        b'{"format": "bitplan run", "version": 1, "commands": 3}',
        b'{"format": "bitplan run", "version": 1, "commands": [{%b, "options": 3}]}' % RECORD,
        b'{"format": "bitplan run", "version": 1, "commands": [{%b, "figures": {"bytes": "x"}}]}' % RECORD,
        b'{"format": "bitplan run", "version": 1, "commands": [{%b, "figures": {"bytes": NaN}}]}' % RECORD,
        b"[" * 100_000,
        b"\xff\xfe",
    ],
)
def test_a_damaged_folder_is_named_and_mended_by_the_next_command(tmp_path: Path, content: bytes) -> None:
    run(tmp_path / "good")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / FILE).write_bytes(content)
    with pytest.raises(FileFormatError, match=r"bad/run\.json is no record of runs"):
        read_records(tmp_path / "bad")
    found = {one.folder: one for one in list_runs(tmp_path)}
    assert (found["bad"].status, found["good"].status) == ("damaged", "done")
    assert "run.json" in str(found["bad"].reason)
    assert run(tmp_path / "bad").status == "done"
    assert (tmp_path / "bad" / f"{FILE}.damaged").read_bytes() == content


RESULT = {
    "status": "met",
    "targets": {"latency_ms": 20.0, "bytes": 2000, "loss": None, "objective": "loss"},
    "file_bytes": 1900,
    "predicted_file_bytes": 1900,
    "predicted_latency_ms": 18.0,
    "measured_latency_ms": {"median": 19.0},
    "accuracy": {"policy": 0.9},
    "loss": {"measured": 0.01, "predicted": 0.02},
    "agreement": 0.95,
    "layers": [],
}


def test_folders_are_listed_the_newest_first_and_with_their_figures(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "result.json").write_text(json.dumps(RESULT))  # of before there were records
    os.utime(tmp_path / "a" / "b" / "result.json", (0, 0))
    for place in ("elsewhere", ".hidden", "a/b/c"):
        (tmp_path / place).mkdir()
    (tmp_path / "elsewhere" / "result.json").write_text("{}")  # of another program
    (tmp_path / ".hidden" / "result.json").write_text(json.dumps(RESULT))
    (tmp_path / "loop").symlink_to(tmp_path)
    run(tmp_path / "one", **RESULT)
    run(tmp_path / "two", **{**RESULT, "status": "planned", "file_bytes": None})
    found = list_runs(tmp_path)
    assert [one.folder for one in found] == ["two", "one", "a/b"]
    assert [one.status for one in found] == ["planned", "met", "met"]
    assert [one.command for one in found] == ["plan", "plan", "?"]
    figures = {"measured": True, "bytes": 1900, "ms": 19.0, "accuracy": 0.9, "agreement": 0.95, "loss": 0.01}
    assert found[1].figures == found[2].figures == figures
    assert (found[0].figures["measured"], found[0].figures["ms"], found[0].figures["loss"]) == (False, 18.0, 0.02)
    assert targets_text(found[1].targets) == "20.000 ms, 2 kB"
    assert [one.folder for one in list_runs(tmp_path, depth=1)] == ["two", "one"]
    assert list_runs(tmp_path / "one")[0].folder == "."


def test_figures_of_a_result_that_are_none_are_left_out(tmp_path: Path) -> None:
    odd = {**RESULT, "file_bytes": "many", "accuracy": 3, "loss": [], "targets": {"latency_ms": "x", "bytes": 9}}
    (tmp_path / "result.json").write_text(json.dumps(odd))
    (found,) = list_runs(tmp_path)
    assert found.figures == {"measured": True, "ms": 19.0, "agreement": 0.95}
    assert targets_text(found.targets) == "9 B"
    assert runs_table([found]).row_count == 1


def test_targets_are_shown_as_they_were_written(tmp_path: Path) -> None:
    config = Config(target_latency="20ms", memory="4MB", max_loss=0.5, objective="bytes")
    with recorded(tmp_path, asked(config), Reporter(quiet=True)):
        pass
    (found,) = list_runs(tmp_path)
    assert targets_text(found.targets) == "20ms, memory 4MB, max loss 0.5, least bytes"


def test_figures_of_studies_and_frontiers() -> None:
    best = {"number": 3, "loss": 0.1, "bytes": 5.0, "latency": 2.0}
    study = {"beats_planner": True, "trials": {"complete": 3, "pruned": 1}, "best": best, "front": None}
    assert figures_of(study) == {"trials": 4, "bytes": 5.0, "ms": 2.0, "loss": 0.1}
    assert figures_of({"points": [{}, {}]}) == {"points": 2}
    assert figures_of({"device_profile": "x"}) == figures_of([1]) == figures_of(None) == {}
    assert Found("x", "met").figures == {}


@pytest.mark.parametrize("number", ["NaN", "1e999", "1" * 400])
def test_numbers_that_cannot_be_shown_are_left_out(tmp_path: Path, number: str) -> None:
    (tmp_path / "result.json").write_text(
        json.dumps(RESULT).replace("1900", number).replace("2000", number)  # sizes and the limit on them
    )
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "result.json").write_text("[" * 100_000)
    (found,) = list_runs(tmp_path)
    assert "bytes" not in {**found.figures, **found.targets}
    assert runs_table([found]).row_count == 1
