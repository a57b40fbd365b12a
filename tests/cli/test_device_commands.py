"""`optimize profile device`, `show`, `diff` and `merge`, and plans from what they leave."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import bitplan.device_commands
from bitplan.network import RELU, Conv2d, Input, Mean, Network, Node
from bitplan.network_file import network_to_json
from bitplan.profiles.device import DeviceProfile
from bitplan.profiles.fingerprint import Fingerprint

MENU = ("--encodings", "int8,int4")


def chain(channels: int, *outputs: int) -> Network:
    nodes = [Node("image", Input(), (), (channels, 6, 6))]
    for number, count in enumerate(outputs):
        nodes.append(Node(f"conv{number}", Conv2d((1, 1), activation=RELU), (nodes[-1].name,), (count, 6, 6)))
    nodes.append(Node("mean", Mean(), (nodes[-1].name,), (outputs[-1],)))
    return Network(tuple(nodes), ("mean",))


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty library; few small layers stand for the typical ones."""
    monkeypatch.setenv("BITPLAN_PROFILES", str(tmp_path / "library"))
    typical = chain(8, 16, 24, 40, 12, 20, 36), chain(16, 48, 8, 28, 32, 44)
    monkeypatch.setattr(bitplan.device_commands, "survey_networks", lambda: typical)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_typical_layers_are_timed_once_and_estimate_other_networks(command: Any, library: Path) -> None:
    first = command("profile", "device", *MENU, "-o", "board.arrow", "--json")
    assert first.code == 0, first.err
    timed = DeviceProfile.load(library / "board.arrow")
    assert first.json["steps"] == len(timed.entries) > 0
    assert command("profile", "device", *MENU, "-o", "again.arrow", "--json").code == 0
    again = DeviceProfile.load(library / "again.arrow")
    ratios = {key: again.entries[key].median / latency.median for key, latency in timed.entries.items()}
    assert len({round(ratio, 6) for ratio in ratios.values()}) == 1  # brought to the present speed, not timed again

    (library / "network.json").write_text(network_to_json(chain(8, 16, 30, 24)))
    shown = command("profile", "show", "board.arrow", "--network", "network.json", *MENU, "--json")
    assert shown.code == 0, shown.err
    assert shown.json["network"]["estimates"] > 0
    assert not any(text.startswith("conv2d") for text in shown.json["network"]["unknown"])


def test_an_output_that_is_no_arrow_file_is_refused_before_anything_is_timed(command: Any, library: Path) -> None:
    called = command("profile", "device", "-o", "board.json")
    assert called.code == 2
    assert ".arrow" in called.err
    assert not (library / "library").exists()


def test_a_configuration_file_does_not_stand_in_the_way(command: Any, library: Path) -> None:
    (library / "optimize.yaml").write_text("output: results\n")
    called = command(
        "profile", "device", *MENU, "--json"
    )  # the library alone: the file's output is a folder of results
    assert called.code == 0, called.err
    assert called.json["device_profile"] == called.json["library"]
    (library / "optimize.yaml").write_text("no mapping")
    assert command("profile", "list").code == 0


def test_options_before_a_sub_command_are_refused(command: Any, library: Path) -> None:
    called = command("profile", "--seed", "3", "device")
    assert called.code == 2
    assert "--seed stands before device" in called.err
    assert "optimize profile device" in called.err


def test_profiles_of_one_machine_merge_and_others_differ(command: Any, library: Path) -> None:
    assert command("profile", "device", *MENU, "-o", "board.arrow").code == 0
    timed = DeviceProfile.load(library / "board.arrow")
    half = dict(list(timed.entries.items())[::2])
    replace(timed, entries=half).save(library / "half.arrow")
    assert command("profile", "merge", "half.arrow", "board.arrow", "-o", "both.arrow").code == 0
    assert DeviceProfile.load(library / "both.arrow").entries == timed.entries

    other = Fingerprint("another processor", (), "avx2", 4, "1")
    slower = {key: latency.scaled(2.0) for key, latency in timed.entries.items()}
    replace(timed, fingerprint=other, entries=slower).save(library / "other.arrow")
    different = command("profile", "diff", "board.arrow", "other.arrow", "--json")
    assert different.code == 0
    assert different.json["shared"] == len(timed.entries)
    assert any("another processor" in text for text in different.json["differences"])
    assert {round(kind["median"], 6) for kind in different.json["kinds"]} == {2.0}
    refused = command("profile", "merge", "board.arrow", "other.arrow", "-o", "both.arrow")
    assert refused.code == 2
    assert "another processor" in refused.err


def test_profiles_that_come_with_bitplan_are_listed_and_travel(command: Any, library: Path) -> None:
    found = {one["name"]: one for one in json.loads(command("profile", "list", "--json").out)}
    assert found.keys() == {"avx2", "avx512vnni"}
    assert all(one["comes_with_bitplan"] for one in found.values())
    assert not any("level" in reason for one in found.values() for reason in one["stale"])
    assert "none of your own yet; record one with: optimize profile device" in command("profile", "list").err
    refused = command("profile", "device", *MENU, "--device", "avx2")
    assert refused.code == 2
    assert "comes with bitplan and stays as it is" in refused.err
