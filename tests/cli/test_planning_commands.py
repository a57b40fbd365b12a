"""`optimize frontier`, `plan --explain` and `--polish` through the command."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from bitplan.file_lock import FileLock
from bitplan.optimizer.frontier.file import read_frontier
from bitplan.policies.policy_file import policy_hash, read_policy

Command = Callable[..., "Called"]  # type: ignore[name-defined]  # noqa: F821


class Page(HTMLParser):
    """What a page loads from elsewhere, and the data in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elsewhere: list[str] = []
        self.inside = False
        self.data = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elsewhere += [value or "" for name, value in attributes if name in ("src", "href")]
        self.inside = ("id", "data") in attributes

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.data += data
            self.inside = False


def test_a_frontier_from_stored_profiles_and_a_point_of_it_carried_out(
    tiny: Command, command: Command, folder: Path
) -> None:
    assert command(
        "profile", "--model", "tiny_network:build", "--data", "data.npz", "--encodings", "float32,int8,int4,binary",
        "-o", "stored",
    ).code == 0  # fmt: skip
    assert command("plan", "stored", "-o", "elsewhere").code == 0  # with the menu that was profiled
    chosen = {layer.variant.encoding for layer in read_policy(folder / "elsewhere" / "policy.json").layers}
    assert chosen <= {"float32", "int8", "int4", "binary"}
    menu = ("--encodings", "float32,int8,int4,binary")
    called = command("frontier", "stored", *menu, "--points", "12", "--json")
    assert called.code == 0, called.err
    found = called.json
    assert found["finished"]
    ours = [point for point in found["points"] if not point["uniform"]]
    assert all(point["efficient"] for point in ours)
    assert {point["uniform"] for point in found["points"]} >= {"int8", "int4", "binary"}
    stored = read_frontier(folder / "stored" / "frontier.arrow")
    assert [point.name for point in stored.points] == [point["name"] for point in found["points"]]
    page = Page((folder / "stored" / "frontier.html").read_text())
    assert page.elsewhere == []
    assert [point["name"] for point in json.loads(page.data)["points"]] == [point["name"] for point in found["points"]]
    with Image.open(folder / "stored" / "frontier.png") as picture:  # over bytes, and over milliseconds beside it
        assert picture.width > 2 * picture.height
    assert command("frontier", "stored", *menu, "--points", "12", "--json").json["points"] == found["points"]
    name = ours[1]["name"]
    realised = command(
        "realise", f"stored/frontier.arrow#{name}", "--model", "tiny_network:build", "--data", "data.npz", "-o", "out",
        "--json",
    )  # fmt: skip
    assert realised.code == 0, realised.err  # nobody asked for limits
    assert realised.json["file_bytes"] == ours[1]["file_bytes"]
    assert policy_hash(read_policy(folder / "out" / "policy.json")) == policy_hash(stored.points[1].policy)
    unknown = command("realise", "stored/frontier.arrow#p99")
    assert unknown.code == 2
    assert "p99" in unknown.err
    assert command("realise", "stored/frontier.arrow").code == 2


def test_a_frontier_is_drawn_without_matplotlib_and_by_one_command_at_a_time(
    command: Command, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    subject = ("--model", "tiny_network:build", "--data", "data.npz", "--encodings", "int8,int4,binary")
    assert command("profile", *subject, "-o", "stored").code == 0
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    frontier = ("frontier", "stored", "--encodings", "int8,int4,binary", "--points", "4", "--json")
    with FileLock(folder / "stored" / "frontier.journal"):  # as another command does
        busy = command(*frontier)
    assert (busy.code, busy.out) == (1, "")
    assert f"frontier.journal is in use by process {os.getpid()}" in busy.err
    called = command(*frontier)
    assert called.code == 0
    assert (folder / called.json["files"]["png"]).read_bytes().startswith(b"\x89PNG")
    for refused in (("--objective", "bytes"), ("--polish", "9"), ("--max-drop", "1%")):
        assert command("frontier", "stored", *refused).code == 2
    impossible = command("frontier", "stored", "--encodings", "int8", "--budget", "10", "--json")
    assert impossible.code == 3
    assert impossible.json["status"] == "infeasible"


def test_a_plan_is_explained_as_text_and_as_json(command: Command, folder: Path) -> None:
    menu = ("--encodings", "float32,int8,int4,binary")
    assert command("profile", "--model", "tiny_network:build", "--data", "data.npz", *menu, "-o", "stored").code == 0
    called = command("plan", "stored", *menu, "--budget", "2kB", "--explain", "--json")
    assert called.code == 0, called.err
    found = called.json["explanation"]
    assert found["finished"]
    assert [limit["target"] for limit in found["limits"]] == ["bytes"]
    assert found["limits"][0]["slack"] == 2000 - called.json["predicted_file_bytes"]
    assert set(found["limits"][0]["gains"]) == {"0.01", "0.05"}
    assert [layer["layer"] for layer in found["layers"]] == ["conv1", "conv2", "fc"]
    assert all(other["objective"] >= found["objective"] - 1e-12 for other in found["alternatives"])
    assert "the next best plans" in called.err
    assert "explanation" not in command("plan", "stored", *menu, "--budget", "2kB", "--json").json


def test_polishing_keeps_the_limits_and_goes_on_from_what_it_measured(tiny: Command, folder: Path) -> None:
    called = tiny("--budget", "2kB", "--polish", "8", "-o", "polished")
    assert called.code == 0, called.err
    assert called.json["file_bytes"] <= 2000
    said = " ".join(called.err.split())
    assert "polishing measures at most 8 policies" in said and "polishing takes" in said
    report = read_policy(folder / "polished" / "policy.json").settings["polish"]
    assert 1 <= report["evaluations"] <= 8
    for before, after in (report["fitted"], report["held_back"]):
        assert after <= before
    again = tiny("--budget", "2kB", "--polish", "8", "-o", "again")
    assert "(0 whole networks realised)" in again.err.replace("\n", " ")
    encodings = [[layer["encoding"] for layer in result.json["layers"]] for result in (called, again)]
    assert encodings[0] == encodings[1]
    assert tiny("--budget", "2kB", "--polish", "1").code == 2
    assert tiny("--max-loss", "1", "--objective", "bytes", "--polish", "9").code == 2
