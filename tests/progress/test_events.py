"""What commands say while they work: for people in lines or bars, for machines as JSON lines of a fixed schema."""

from __future__ import annotations

import io
import json
import time
from importlib import resources
from typing import Any

import jsonschema
import pytest
from rich.console import Console
from rich.table import Table

from bitplan.progress import JSON, PLAIN, Reporter, Stage
from bitplan.progress.events import BEGUN, ENDED, PROGRESS, Event
from bitplan.progress.passes import in_passes
from bitplan.progress.people import PlainLines, Terminal

SCHEMA = jsonschema.Draft202012Validator(
    json.loads((resources.files("bitplan.progress") / "schema.json").read_text("utf-8"))
)


def valid_lines(text: str) -> list[dict[str, Any]]:
    """The events of JSON lines, each of which follows the schema."""
    events = [json.loads(line) for line in text.splitlines()]
    for event in events:
        SCHEMA.validate(event)
    return events


def everything(reporter: Reporter) -> None:
    """Says something of every kind."""
    reporter.say("[bold]bold[/] and a bracket: \\[x]")
    reporter.warn("careful")
    reporter.detail("a [detail]")
    table = Table("a", "b")
    table.add_row("1", "2")
    reporter.show(table)
    with reporter.stage("work") as report:
        report(1, 4, "first")
        report(4, 4, "last")
    with pytest.raises(KeyboardInterrupt), reporter.stage("broken off"):
        raise KeyboardInterrupt
    with pytest.raises(ValueError, match="no"), reporter.stage("in vain"):
        raise ValueError("no")
    reporter.error("it is wrong", "usage", 2)
    reporter.result({"loss": float("nan"), "status": "met"})


def test_every_event_is_a_line_of_json_that_follows_the_schema(capfd: pytest.CaptureFixture[str]) -> None:
    everything(Reporter(form=JSON, verbose=True))
    out, err = capfd.readouterr()
    assert out == ""
    events = valid_lines(err)
    assert {event["event"] for event in events} == set(SCHEMA.schema["properties"]["event"]["enum"])
    assert next(event["text"] for event in events if event["event"] == "message") == "bold and a bracket: [x]"
    ended = {event["stage"]: event["outcome"] for event in events if event["event"] == ENDED}
    assert ended == {"work": "done", "broken off": "interrupted", "in vain": "failed"}
    progress = [event for event in events if event["event"] == PROGRESS]
    assert [(event["done"], event["doing"], event["id"]) for event in progress] == [(1, "first", 1), (4, "last", 1)]
    assert events[-1]["result"] == {"loss": None, "status": "met"}
    times = [event["seconds"] for event in events]
    assert times == sorted(times)


def test_plain_lines_are_never_broken_and_details_are_for_v(capfd: pytest.CaptureFixture[str]) -> None:
    for verbose in (False, True):
        reporter = Reporter(form=PLAIN, verbose=verbose)
        reporter.say("long " * 60)
        everything(reporter)
        _, err = capfd.readouterr()
        lines = err.splitlines()
        assert lines[0].split() == ["long"] * 60
        assert ("a [detail]" in lines) == verbose
        assert "work ..." in lines and "bold and a bracket: [x]" in lines
        assert any(line.startswith("done work (") for line in lines)
        assert any(line.startswith("failed in vain (") for line in lines)
        assert "optimize: it is wrong" in lines


def test_quiet_says_nothing_but_listeners_hear_everything(capfd: pytest.CaptureFixture[str]) -> None:
    heard: list[Event] = []
    reporter = Reporter(quiet=True)
    with reporter.listened(heard.append):
        everything(reporter)
    reporter.say("nobody hears this")
    assert capfd.readouterr() == ("", "")
    assert len(heard) == 14


def test_a_stage_that_cannot_tell_how_far_it_is_reports_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bitplan.progress.TICK", 0.01)
    heard: list[Event] = []
    with Reporter(quiet=True, listener=heard.append).stage("solving", at_most=20) as report:
        while sum(event.name == PROGRESS for event in heard) < 3:
            time.sleep(0.01)
        report.takes(50)
        while heard[-1].fields["total"] != 50:
            time.sleep(0.01)
    assert [event.name for event in (heard[0], heard[-1])] == [BEGUN, ENDED]
    fields = heard[1].fields
    assert (fields["done"], fields["total"], fields["unit"]) == (0, 20, "seconds")
    assert 19 < fields["seconds_left"] < 20
    count = len(heard)
    time.sleep(0.05)
    assert len(heard) == count  # the stage is over


def test_the_time_left_does_not_count_what_an_earlier_run_has_done(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("bitplan.progress.time.monotonic", lambda: now)
    heard: list[Event] = []
    stage = Stage(heard.append, "measuring", 1)
    stage(90, 120)
    now += 10
    stage(100, 120)
    assert [event.fields["seconds_left"] for event in heard] == [None, pytest.approx(20)]
    stage(0, 120)  # another pass
    now += 1
    stage(10, 120)
    assert heard[-1].fields["seconds_left"] == pytest.approx(11)


def test_passes_are_parts_of_one_whole() -> None:
    told: list[tuple[int, int, str]] = []
    report = in_passes(lambda *report: told.append(report), 3)
    for done, total in (
        (0, 4),
        (0, 4),
        (2, 4),
        (4, 4),
        (0, 4),
        (4, 4),
        (4, 4),
        (1, 100),
        (50, 100),
        (100, 100),
        (0, 4),
    ):
        report(done, total, "")
    assert [done for done, _, _ in told] == [0, 0, 2, 4, 4, 8, 8, 8, 10, 12, 12]
    assert {total for _, total, _ in told} == {12}


def test_machines_get_one_line_a_second_and_the_last_step(capfd: pytest.CaptureFixture[str]) -> None:
    with Reporter(form=JSON).stage("many steps") as report:
        for done in range(1, 501):
            report(done, 500, "")
    progress = [event for event in valid_lines(capfd.readouterr().err) if event["event"] == PROGRESS]
    assert progress[0]["done"] == 1 and progress[-1]["done"] == 500
    assert len(progress) < 50


def test_long_stages_say_in_plain_lines_how_much_time_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bitplan.progress.people.LINE_INTERVAL", 0.0)
    text = io.StringIO()
    lines = PlainLines(Console(file=text, width=80))
    about = {"stage": "measuring", "id": 1, "unit": "steps", "stage_seconds": 30.0}
    lines(Event(PROGRESS, about | {"done": 3, "total": 9, "doing": "conv as int4", "seconds_left": 60.0}))
    assert text.getvalue() == "  measuring: 3/9 conv as int4, about 60 s left\n"


def test_a_terminal_shows_a_bar_with_the_time_left_for_each_stage() -> None:
    text = io.StringIO()
    console = Console(file=text, force_terminal=True, width=120)
    reporter = Reporter(quiet=True, listener=Terminal(console))
    with reporter.stage("outer") as outer:
        outer(2, 8, "conv")
        with reporter.stage("inner") as inner:
            inner(1, 2, "")
            time.sleep(0.3)  # bars are drawn ten times a second
            inner(2, 2, "")
        reporter.say("said meanwhile")
    shown = text.getvalue()
    for expected in ("outer", "2/8", "conv", "inner", "1/2", "said meanwhile", "done"):
        assert expected in shown
    assert "-:--:--" in shown or "0:00:0" in shown  # the column of the time left
