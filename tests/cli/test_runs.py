"""Progress as JSON lines, run folders and `optimize runs`, through the commands."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any, NoReturn

import jsonschema
import pytest

from bitplan.profiles.loss import LossProfile
from bitplan.runs.record import read_records

Command = Callable[..., Any]
SUBJECT = ("--model", "tiny_network:build", "--data", "data.npz")
SCHEMA = jsonschema.Draft202012Validator(
    json.loads((resources.files("bitplan.progress") / "schema.json").read_text("utf-8"))
)


def events(err: str) -> list[dict[str, Any]]:
    """The events of standard error, every line of which follows the schema."""
    found = [json.loads(line) for line in err.splitlines()]
    for event in found:
        SCHEMA.validate(event)
    return found


def test_a_run_folder_holds_all_of_a_run_and_machines_hear_all_of_it(
    tiny: Command, command: Command, folder: Path
) -> None:
    (folder / "optimize.yaml").write_text("seed: 3\n")
    quick = ("--budget", "3kB", "--recovery", "fast", "--loss-profile", "tempered", "--link-policies", "0")
    called = tiny(*quick, "--report", "-o", "out")
    assert called.code == 0, called.err
    heard = events(called.err)
    assert [event["result"] for event in heard if event["event"] == "result"] == [called.json]
    assert len(called.out.splitlines()) == 1
    begun, ended = ([event["id"] for event in heard if event["event"] == f"stage_{how}"] for how in ("begun", "ended"))
    assert begun == sorted(ended) == list(range(1, len(begun) + 1))
    told = {event["id"] for event in heard if event["event"] == "stage_progress"}
    long = {event["id"]: event["stage"] for event in heard if event.get("stage_seconds", 0) > 2}
    assert not set(long) - told, f"no progress of {long}"

    names = {"run.json", "run.log", "device.arrow", "loss.arrow", "policy.json", "network.bitplan", "report.html"}
    assert names <= {path.name for path in (folder / "out").iterdir()}
    (record,) = read_records(folder / "out")
    assert (record.command, record.status, record.exit_code, record.cwd) == ("optimize", "met", 0, str(folder))
    sources = {name: record.options[name]["from"] for name in ("budget", "seed", "threads")}
    assert sources == {"budget": "command line", "seed": "optimize.yaml", "threads": "default"}
    assert record.figures["bytes"] == called.json["file_bytes"]
    log = (folder / "out" / "run.log").read_text()
    for event in heard:
        if event["event"] == "message":
            assert event["text"] in log

    realised = command("realise", "out/policy.json", *SUBJECT, "--recovery", "fast", "-o", "again", "--quiet", "--json")
    assert (realised.code, realised.err) == (0, "")
    assert "evaluating on the test images" in (folder / "again" / "run.log").read_text()
    losses = LossProfile.load(folder / "again" / "loss.arrow")
    assert losses.increases.keys() == LossProfile.load(folder / "out" / "loss.arrow").increases.keys()
    facts = command("report", "again", "--json").json
    assert {row["what"] for row in facts["missing"]} == {"frontier.arrow", "pairs", "step-times.json"}
    assert command("plan", "out", "--encodings", "int8,int4", "-o", "elsewhere").code == 0
    lacking = {row["what"] for row in command("report", "elsewhere", "--json").json["missing"]}
    assert not lacking & {"network.json", "device.arrow", "loss.arrow"}
    refused = command("plan", "out", "--encodings", "int8,int4", "--budget", "1B", "--json")
    *_, last = events(refused.err)
    assert (refused.code, last["kind"], last["exit_code"]) == (3, "infeasible", 3)
    assert last["details"]["limits"] == refused.json["limits"]

    listed = json.loads(command("runs", "--json").out)
    assert [(one["folder"], one["command"], one["status"]) for one in listed] == [
        ("out", "plan", "infeasible"), ("elsewhere", "plan", "planned"), ("again", "realise", "met"),
    ]  # fmt: skip
    assert listed[0]["commands"] == ["optimize", "plan"]
    shown = command("runs").err
    assert "infeasible" in shown and "realise" in shown


def test_an_unknown_form_of_progress_is_refused(command: Command) -> None:
    called = command("--progress", "loud", "--json")
    (last,) = events(called.err)
    assert (called.code, last["kind"], "auto, plain, json" in last["text"]) == (2, "usage", True)


def interrupted(*_: object, **__: object) -> NoReturn:
    raise KeyboardInterrupt


def broken(*_: object, **__: object) -> NoReturn:
    raise RuntimeError("nobody foresaw this")


FAILING = [
    (("--budgett", "3kB"), "usage", 2),
    (("--budget", "3 apples"), "usage", 2),
    (("plan", "nowhere"), "file_format", 1),
    (("runs", "nowhere"), "usage", 2),
    (("bench", "nowhere.bitplan"), "system", 1),
    (("study", "show", "nowhere"), "usage", 2),
    (("replan", "nowhere"), "usage", 2),
    ((*SUBJECT, "--weights", "none.pt"), "data", 1),
    (("--model", "tiny_network:build_unsupported", "--data", "data.npz"), "unsupported", 1),
]


@pytest.mark.parametrize(("arguments", "kind", "code"), FAILING, ids=[" ".join(row[0]) for row in FAILING])
@pytest.mark.parametrize("form", ["--json", "--progress=json"])
def test_commands_that_fail_say_so_in_json_too(
    command: Command, arguments: tuple[str, ...], kind: str, code: int, form: str
) -> None:
    called = command(*arguments, "--json") if arguments[0] in ("runs", "study") else command(*arguments, form)
    assert called.code == code, called.err
    *_, last = events(called.err)
    assert (last["event"], last["exit_code"]) == ("error", code)
    assert last["kind"] == kind, called.err


@pytest.mark.parametrize(
    ("how", "kind", "status", "code"),
    [(interrupted, "interrupted", "interrupted", 130), (broken, "internal", "failed", 1)],
)
def test_a_run_that_breaks_off_is_kept_with_the_reason(
    tiny: Command, folder: Path, monkeypatch: pytest.MonkeyPatch, how: Any, kind: str, status: str, code: int
) -> None:
    monkeypatch.setattr("bitplan.trained.captured", how)
    called = tiny("--budget", "3kB", "-o", "out")
    assert called.code == code
    *_, stage, last = events(called.err)
    assert (stage["outcome"], last["kind"], last["exit_code"]) == (status, kind, code)
    assert ("captured" in last.get("traceback", "") or "broken" in last.get("traceback", "")) == (kind == "internal")
    (record,) = read_records(folder / "out")
    assert (record.status, record.exit_code) == (status, code)
    log = (folder / "out" / "run.log").read_text()
    assert str(record.error) in log
    assert ("Traceback" in log) == (kind == "internal")


def test_commands_that_find_no_folder_make_none(command: Command, folder: Path) -> None:
    for arguments in (("plan", "nowhere"), ("frontier", "nowhere"), ("replan", "nowhere"), ("--version",)):
        command(*arguments)
    assert not [path.name for path in folder.iterdir() if path.is_dir() and path.name != "__pycache__"]


def test_runs_are_listed_without_torch_and_damaged_ones_named(folder: Path) -> None:
    (folder / "bad").mkdir()
    (folder / "bad" / "run.json").write_text("{")
    script = (
        "import sys; sys.modules.update(torch=None, scipy=None, ortools=None); from bitplan.cli import main; "
        "sys.argv = ['optimize', 'runs']; main()"
    )
    child = subprocess.run([sys.executable, "-P", "-c", script], check=False, capture_output=True, text=True)
    assert child.returncode == 0, child.stderr
    assert "bad/run.json is no record of runs" in child.stderr and "damaged" in child.stderr
