"""What `optimize frontier` makes of estimated latencies, and its picture."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from bitplan.optimizer.frontier.file import read_frontier
from bitplan.profiles.device import DeviceProfile
from bitplan.report.frontier_picture import frontier_png

Command = Callable[..., Any]


@pytest.fixture
def folder(results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(results, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_points_note_the_margin_that_they_were_planned_with(
    command: Command, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = DeviceProfile.load(folder / "out" / "device.arrow")
    estimates = {key: replace(latency, estimated=True) for key, latency in known.entries.items()}
    monkeypatch.setattr("bitplan.profiles.estimates.completed", lambda *_: replace(known, entries=estimates))
    replace(known, entries=dict(list(known.entries.items())[1:])).save(folder / "out" / "device.arrow")
    options = ("--encodings", "int8,int4,binary", "--points", "4", "--margin", "2")
    called = command("frontier", "out", *options, "-o", "new")
    assert called.code == 0, called.err
    points = read_frontier(folder / "new" / "frontier.arrow").points
    assert {point.policy.settings["estimates"]["margin"] for point in points} == {2.0}


def test_the_picture_shows_bytes_and_where_they_are_known_milliseconds(folder: Path) -> None:
    found = read_frontier(folder / "out" / "frontier.arrow")
    both = Image.open(io.BytesIO(frontier_png(found)))
    untimed = [replace(p, policy=replace(p.policy, predicted={**p.policy.predicted, "latency_ms": None}))
               for p in found.points]  # fmt: skip
    one = Image.open(io.BytesIO(frontier_png(replace(found, points=tuple(untimed)))))
    assert (both.width, both.height) == (2 * one.width, one.height)
    assert both.convert("L").crop((one.width, 0, *both.size)).getextrema()[0] < 128  # something is drawn on the right
