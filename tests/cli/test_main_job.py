"""The main job through the command, on a tiny network."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from bitplan.kernels import Runtime
from bitplan.policies.policy_file import policy_hash, read_policy

Command = Callable[..., Any]


def test_a_met_target_leaves_artifact_policy_and_result(tiny: Command, command: Command, folder: Path) -> None:
    called = tiny("--target-latency", "50ms", "--budget", "3kB", "-o", "out")
    assert called.code == 0, called.err
    result = called.json
    assert result["status"] == "met"
    artifact = Path(result["artifact"])
    assert result["file_bytes"] == result["predicted_file_bytes"] == artifact.stat().st_size <= 3000
    assert result["measured_latency_ms"]["low"] <= result["measured_latency_ms"]["median"] <= 50
    assert result["loss"]["predicted_scale"] == result["loss"]["measured_scale"] == "kl"
    assert result["solver"]["status"] == "optimal"
    assert result["solver"]["gap"] <= 1e-3
    assert set(result["accuracy"]) >= {"full_precision", "policy"}
    assert [layer["name"] for layer in result["layers"]] == ["conv1", "conv2", "fc"]
    assert json.loads((folder / "out" / "result.json").read_text()) == result
    policy = read_policy(Path(result["policy"]))
    runtime = Runtime.load(artifact)
    assert runtime.policy_hash == policy_hash(policy)
    assert runtime.weight_bytes + runtime.arena_bytes == result["resident_bytes"]
    resolved = yaml.safe_load((folder / "out" / "optimize.yaml").read_text())
    assert resolved["budget"] == "3kB"
    assert resolved["model"] == "tiny_network:build"
    report = command("report", "out", "--json").json
    assert report["status"] == "met"
    assert [row["what"] for row in report["missing"]] == ["frontier.arrow", "step-times.json", "pairs"]
    menu = ("--encodings", "float32,int8,int4,binary")
    again = command("plan", "out", *menu, "--budget", "3kB", "-o", "planned", "--json")  # by the profiles left there
    assert again.json["predicted_file_bytes"] <= 3000


def test_every_limit_is_kept(tiny: Command) -> None:
    loose = tiny("--budget", "20kB").json
    memory = tiny("--memory", f"{loose['resident_bytes'] - 200}").json
    assert memory["resident_bytes"] <= loose["resident_bytes"] - 200
    few = tiny("--budget", "20kB", "--full-precision-weights", "0").json
    assert not any(layer["encoding"] == "float32" for layer in few["layers"])
    small = tiny("--objective", "bytes", "--max-loss", "10").json
    assert small["file_bytes"] < loose["file_bytes"]


def test_pins_and_exclusions_are_obeyed(tiny: Command) -> None:
    result = tiny("--budget", "20kB", "--pin", "conv2=binary", "--exclude", "fc").json
    encodings = {layer["name"]: layer["encoding"] for layer in result["layers"]}
    assert encodings["conv2"] == "binary"
    assert encodings["fc"] == "float32"


def test_a_dry_run_stops_at_the_policy(tiny: Command, folder: Path) -> None:
    called = tiny("--budget", "3kB", "--dry-run", "-o", "dry")
    assert called.code == 0
    assert called.json["status"] == "planned"
    assert called.json["artifact"] is None
    assert (folder / "dry" / "policy.json").exists()
    assert not (folder / "dry" / "network.bitplan").exists()


def test_the_note_of_an_earlier_hybrid_run_goes(tiny: Command, folder: Path) -> None:
    (folder / "dry").mkdir()
    (folder / "dry" / "LOAD.md").write_text("how a hybrid result is loaded")
    assert tiny("--budget", "3kB", "--dry-run", "-o", "dry").code == 0
    assert not (folder / "dry" / "LOAD.md").exists()


def test_the_configuration_file_is_read_and_options_win(command: Command, folder: Path) -> None:
    (folder / "optimize.yaml").write_text(
        "model: tiny_network:build\ndata: data.npz\nbudget: 3kB\nencodings: [int8, int4, binary]\ncompare: [none]\n"
    )
    from_file = command("--json").json
    assert from_file["targets"]["bytes"] == 3000
    assert command("--json", "--budget", "4kB").json["targets"]["bytes"] == 4000


def test_a_max_drop_asks_for_the_smallest_that_keeps_it(tiny: Command) -> None:
    called = tiny("--max-drop", "100%")
    smallest = called.json
    assert called.code == 0
    assert smallest["targets"]["objective"] == "bytes"
    assert {layer["encoding"] for layer in smallest["layers"]} <= {"binary", "float32"}


def test_an_own_metric_replaces_accuracy(tiny: Command) -> None:
    result = tiny("--budget", "3kB", "--metric", "tiny_network:worst").json
    assert result["accuracy"]["policy"] == result["accuracy"]["full_precision"] == 0.25


def test_uniform_policies_are_compared(tiny: Command, command: Command) -> None:
    called = command(
        "--model", "tiny_network:build", "--data", "data.npz", "--encodings", "float32,int8,binary",
        "--budget", "5kB", "--compare", "fitting", "--json",
    )  # fmt: skip
    assert called.code == 0, called.err
    names = [row["name"] for row in called.json["comparison"]]
    assert names == ["uniform int8", "uniform binary"]


def test_measured_profiles_are_reused(tiny: Command) -> None:
    tiny("--budget", "3kB")
    again = tiny("--budget", "4kB")
    assert "every step is known" in again.err
    assert "every choice is known" in again.err


def test_recovery_is_chosen_and_what_each_step_gains_is_reported(tiny: Command) -> None:
    strong = tiny("--budget", "3kB", "--encodings", "int3,binary", "--recovery", "strong")
    assert strong.code == 0, strong.err
    gains = strong.json["recovery"]
    another_way = [] if gains[2]["kept"] else ["reconstruct to own weights"]
    assert [gain["step"] for gain in gains] == ["rounded", "correct", "reconstruct", *another_way, "tune"]
    least = np.inf
    for gain in gains:
        assert gain["kept"] == (gain["held_back_loss"] < least)
        least = min(least, gain["held_back_loss"])
    assert "loss on held-back calibration images, outputs softened: rounded" in strong.err
    fast = tiny("--budget", "3kB", "--encodings", "int3,binary", "--recovery", "fast").json
    assert fast["file_bytes"] == strong.json["file_bytes"]
    assert fast["recovery"] == gains[:2]


def test_steps_that_too_few_images_leave_out_are_told(tiny: Command) -> None:
    called = tiny(
        "--budget", "3kB", "--calibration-size", "4", "--recovery", "strong", "--link-policies", "0", "-o", "out"
    )
    assert called.code in (0, 4), called.err
    assert "4 calibration images are too few to hold any back: tune left out" in called.err


def test_options_of_planning_are_told_to_be_useless_to_a_policy(tiny: Command, command: Command) -> None:
    assert tiny("--budget", "2kB", "--dry-run", "--link-policies", "0", "-o", "out").code == 0
    subject = ("--model", "tiny_network:build", "--data", "data.npz", "-o", "out")
    called = command("realise", "out/policy.json", *subject, "--polish", "3", "--time-limit", "2")
    assert called.code in (0, 4), called.err
    assert "--polish, --time-limit had to be given when it was planned" in called.err
    assert "had to be given" not in command("realise", "out/policy.json", *subject).err


def test_an_edited_policy_is_realised(tiny: Command, command: Command, folder: Path) -> None:
    tiny("--budget", "20kB", "-o", "out")
    path = folder / "out" / "policy.json"
    content = json.loads(path.read_text())
    for layer in content["layers"]:
        layer["encoding"] = "ternary"
    path.write_text(json.dumps(content))
    subject = ["--model", "tiny_network:build", "--data", "data.npz"]
    called = command("realise", str(path), *subject, "-o", "edited", "--json")
    assert called.code == 0, called.err
    assert {layer["encoding"] for layer in called.json["layers"]} == {"ternary"}
    assert called.json["file_bytes"] == (folder / "edited" / "network.bitplan").stat().st_size


def test_an_edited_policy_runs_where_its_configuration_lies(tiny: Command, command: Command, folder: Path) -> None:
    tiny("--budget", "20kB", "-o", "out")
    path = folder / "out" / "policy.json"
    unedited = command("run", str(path), "--data", "data.npz", "--json")
    assert unedited.code == 0, unedited.err
    assert unedited.json == command("run", "out/network.bitplan", "--data", "data.npz", "--json").json
    content = json.loads(path.read_text())
    for layer in content["layers"]:
        layer["encoding"] = "binary"
    path.write_text(json.dumps(content))
    edited = command("run", str(path), "--data", "data.npz", "-o", "edited.npz", "--json")
    assert edited.code == 0, edited.err
    assert "was edited" in edited.err
    command("run", "out/network.bitplan", "--data", "data.npz", "-o", "before.npz")
    assert not np.array_equal(np.load("edited.npz")["outputs"], np.load("before.npz")["outputs"])
    content["layers"][0]["name"] = "conv11"
    path.write_text(json.dumps(content))
    wrong = command("run", str(path), "--data", "data.npz")
    assert wrong.code == 2
    assert "conv11" in wrong.err


def test_an_edited_policy_is_judged_by_its_own_targets(tiny: Command, command: Command, folder: Path) -> None:
    tiny("--budget", "3kB", "-o", "out")
    path = folder / "out" / "policy.json"
    content = json.loads(path.read_text())
    for layer in content["layers"]:
        layer["encoding"] = "int8"
    path.write_text(json.dumps(content))
    subject = ["--model", "tiny_network:build", "--data", "data.npz", "-o", "edited", "--json"]
    missed = command("realise", str(path), *subject)
    assert missed.code == 4
    assert "3000" in missed.json["misses"][0]
    assert missed.json["predicted_file_bytes"] == missed.json["file_bytes"]
    assert command("realise", str(path), *subject, "--budget", "5kB").code == 0


def test_a_network_with_two_outputs_is_planned_by_squared_error(command: Command) -> None:
    called = command(
        "--model", "tiny_network:build_two", "--data", "data.npz", "--encodings", "int8,binary",
        "--budget", "3kB", "--compare", "none", "--json",
    )  # fmt: skip
    assert called.code == 0, called.err
    assert called.json["agreement"] is None
    assert "accuracy" not in called.json
    assert called.json["loss"]["measured"] > 0


def test_profile_then_plan_without_network_or_images(command: Command, folder: Path) -> None:
    subject = ["--model", "tiny_network:build", "--data", "data.npz", "--encodings", "int8,int4,binary"]
    assert command("profile", *subject, "-o", "stored").code == 0
    called = command("plan", "stored", "--encodings", "int8,int4,binary", "--budget", "3kB", "--json")
    assert called.code == 0, called.err
    assert called.json["predicted_file_bytes"] <= 3000
    assert read_policy(folder / "stored" / "policy.json").certificate.status == "optimal"


def test_run_and_bench_need_only_the_artifact(tiny: Command, command: Command, folder: Path) -> None:
    artifact = tiny("--budget", "3kB", "-o", "out").json["artifact"]
    run = command("run", artifact, "--data", "data.npz", "-o", "outputs.npz", "--json")
    assert run.code == 0, run.err
    assert run.json["images"] == 64
    assert 0 <= run.json["accuracy"] <= 1
    assert np.load("outputs.npz")["outputs"].shape == (64, 4)
    bench = command("bench", artifact, "--runs", "20", "--json")
    assert bench.code == 0, bench.err
    assert bench.json["runs"] >= 1
    assert "conv2" in bench.json["steps_ms"]


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["doctor"], ["run", "--help"]])
def test_help_and_doctor(command: Command, arguments: list[str]) -> None:
    called = command(*arguments)
    assert called.code == 0
    assert called.out + called.err
