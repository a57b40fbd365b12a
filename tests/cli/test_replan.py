"""`optimize replan` through the command, on a tiny network."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitplan.earlier_run import read_earlier
from bitplan.kernels import Runtime
from bitplan.policies.policy_file import policy_hash, read_policy
from bitplan.policies.realise.distil import TEMPERATURE

Command = Callable[..., Any]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kept") / "out"


@pytest.fixture
def subject() -> tuple[str, ...]:
    return ("--model", "tiny_network:build", "--data", "data.npz", "--compare", "none")


@pytest.fixture
def out(tiny: Command, folder: Path, kept: Path) -> Path:
    """What a run with fine-tuning leaves, in the current folder."""
    if not kept.exists():
        done = tiny(
            *("--budget", "1100B", "--link-policies", "0", "--finetune", "1epochs", "-o", "out"),
            *("--finetune-option", "batch=8", "--finetune-option", "learning_rate=0.0001"),
            menu="int8,int4,int2,binary",
        )
        assert done.code == 0, done.err
        shutil.copytree(folder / "out", kept)
    shutil.copytree(kept, folder / "out", dirs_exist_ok=True)
    return folder / "out"


def test_more_bytes_are_given_to_layers_and_the_stages_are_told(out: Path, command: Command) -> None:
    done = command("replan", "out", "--budget", "3kB", "--json")
    assert done.code == 0, done.err
    told = done.json["replanning"]
    assert list(told["stages"]) == ["planned", "recovered", "finetuned", "replanned"]
    assert told["kept"] is False
    assert told["held_back"]["after"] < told["held_back"]["before"]
    assert told["stages"]["finetuned"]["file_bytes"] <= 1100 < told["stages"]["replanned"]["file_bytes"] <= 3000
    assert sum(row["bytes_after"] - row["bytes_before"] for row in told["moved"]) == (
        told["stages"]["replanned"]["file_bytes"] - told["stages"]["finetuned"]["file_bytes"]
    )
    policy = read_policy(out / "replanned" / "policy.json")
    assert Runtime.load(out / "replanned" / "network.bitplan").policy_hash == policy_hash(policy)
    assert json.loads((out / "replanned" / "result.json").read_text()) == done.json
    facts = command("report", "out/replanned", "--json").json
    assert {row["what"] for row in facts["missing"]} == {"frontier.arrow", "pairs", "step-times.json"}
    assert [stage["name"] for stage in facts["stages"]] == list(told["stages"])
    assert "--finetune 10epochs" in done.err
    assert "epoch 1" not in done.err


def test_bytes_move_between_layers_of_a_badly_planned_network(
    tiny: Command, command: Command, folder: Path, subject: tuple[str, ...]
) -> None:
    planned = tiny("--budget", "4kB", "--dry-run", "--link-policies", "0", "-o", "bad")
    assert planned.code == 0, planned.err
    edited = json.loads((folder / "bad" / "policy.json").read_text())
    for layer in edited["layers"]:  # the large layer gets what the small ones need
        layer["encoding"] = "int8" if layer["name"] == "conv2" else "binary"
        layer.pop("kernel", None)
    (folder / "bad" / "policy.json").write_text(json.dumps(edited))
    options = ("--finetune", "1epochs", "--finetune-option", "batch=8", "--finetune-option", "learning_rate=0.0001")
    done = command("realise", "bad/policy.json", *subject, *options, "-o", "bad", "--json")
    assert done.code == 0, done.err
    size = done.json["file_bytes"]
    done = command("replan", "bad", "--budget", f"{size}B", "--encodings", "int8,int4,binary", "--json")
    assert done.code == 0, done.err
    told = done.json["replanning"]
    changes = [row["bytes_after"] - row["bytes_before"] for row in told["moved"]]
    assert min(changes) < 0 < max(changes)
    assert told["kept"] is False
    assert done.json["file_bytes"] <= size


def test_what_there_is_stays_where_the_plan_is_the_same(out: Path, command: Command) -> None:
    pins = [f"--pin={layer.name}={layer.variant}" for layer in read_policy(out / "policy.json").layers]
    nothing = ("--no-hybrid", "--polish", "0", "--compare", "none", "--loss-profile", "separable")
    done = command("replan", "out", *pins, *nothing, "-o", "same", "--finetune", "3epochs", "--json")
    assert done.code == 0, done.err
    assert done.json["replanning"]["kept"] is True
    assert "the plan is the same" in done.err
    assert list(done.json["replanning"]["stages"]) == ["planned", "recovered", "finetuned"]
    for name in ("network.bitplan", "trained.safetensors"):
        assert (out.parent / "same" / name).read_bytes() == (out / name).read_bytes()


def test_what_there_is_stays_where_the_new_plan_is_no_better(
    out: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    temperatures: list[float] = []

    def no_better(network: Any, weights: Any, images: Any, states: Any, **options: Any) -> list[np.ndarray]:
        temperatures.append(options["temperature"])
        return [np.full(len(images), 0.5, np.float32)] * len(states)

    monkeypatch.setattr("bitplan.profiles.measure_around.losses_of", only_of_two(no_better))
    done = command("replan", "out", "--budget", "3kB", "--json")
    assert done.code == 0, done.err
    told = done.json["replanning"]
    assert temperatures == [TEMPERATURE]  # as recovery's judge
    assert told["kept"] is True
    assert told["moved"]
    assert "no better" in told["reason"]
    replanned = out / "replanned"
    assert (replanned / "network.bitplan").read_bytes() == (out / "network.bitplan").read_bytes()
    assert policy_hash(read_policy(replanned / "policy.json")) == policy_hash(read_policy(out / "policy.json"))
    # that of a budget that it does not meet goes, whatever it is worth
    size = told["stages"]["finetuned"]["file_bytes"]
    done = command("replan", "out", "--budget", f"{size - 100}B", "-o", "smaller", "--json")
    assert done.code == 0, done.err
    assert done.json["replanning"]["kept"] is False
    assert done.json["file_bytes"] <= size - 100


def only_of_two(replaced: Callable[..., Any]) -> Callable[..., Any]:
    """`losses_of` as it is for one state, which measuring asks for, and `replaced` for two, which the judge does."""
    from bitplan.profiles.measure_around import losses_of

    def called(network: Any, weights: Any, images: Any, states: Any, **options: Any) -> Any:
        return (replaced if len(states) == 2 else losses_of)(network, weights, images, states, **options)

    return called


def test_training_goes_on_only_when_it_is_asked_for_and_can_be_replanned_again(out: Path, command: Command) -> None:
    options = ("--finetune", "2epochs", "--budget", "3kB", "-o", "again")
    done = command("replan", "out", *options, "--json")
    assert done.code == 0, done.err
    assert list(done.json["replanning"]["stages"])[-2:] == ["replanned", "finetuned_again"]
    assert "epoch 2/2" in done.err
    done = command("replan", "again", "--json")
    assert done.code == 0, done.err
    assert "fine-tuning on" not in done.err


@pytest.mark.parametrize(
    ("options", "code", "match"),
    [
        (("--budget", "500B"), 3, "500"),
        (("--model", "tiny_network:build_two"), 2, "network"),
        (("--objective", "bytes"), 2, "objective is bytes"),
        (("--max-drop", "1%"), 2, "leave out --max-drop"),
        (("-o", "out"), 2, "would overwrite"),
        (("--train-data", "data.npz"), 2, "without finetune"),
        (("--recovery", "equalise"), 2, "equalise"),
        (("--hybrid",), 2, "--hybrid is not offered by replan"),
        (("--polish", "4"), 2, "--polish is not offered by replan"),
        (("--rounds", "2"), 2, "--rounds is not offered by replan"),
        (("--compare", "int8"), 2, "--compare is not offered by replan"),
        (("--loss-profile", "gram"), 2, "--loss-profile is not offered by replan"),
        (("--link-policies", "8"), 2, "--link-policies is not offered by replan"),
        (("--calibration-size", "4"), 1, "give 5 at least"),
    ],
)
def test_what_cannot_be_replanned_is_said(
    out: Path, command: Command, options: tuple[str, ...], code: int, match: str
) -> None:
    done = command("replan", "out", *options)
    assert (done.code, match in done.err) == (code, True), done.err


def test_a_missing_torch_is_named_with_the_way_to_get_it(folder: Path) -> None:
    script = (
        "import sys; sys.modules.update(torch=None); from bitplan.cli import main; "
        "sys.argv = ['optimize', 'replan', 'out']; main()"
    )
    (folder / "out").mkdir()
    (folder / "out" / "optimize.yaml").touch()
    child = subprocess.run([sys.executable, "-P", "-c", script], check=False, capture_output=True, text=True)
    assert child.returncode == 2
    assert "replanning needs the package 'torch'; install it with: pip install 'bitplan[torch]'" in child.stderr
    assert "Traceback" not in child.stderr


def test_a_folder_without_a_fine_tuned_network_is_named(out: Path, tiny: Command, command: Command) -> None:
    assert "does not exist" in command("replan", "nowhere").err
    policy = out / "policy.json"
    kept = policy.read_text()
    policy.write_text(kept.replace('"int4"', '"int8"').replace('"binary"', '"int2"'))
    edited = command("replan", "out")
    assert (edited.code, "is not the policy that trained.safetensors" in edited.err) == (2, True), edited.err
    policy.write_text(kept)
    (out / "trained.safetensors").write_bytes(b"something else")
    assert "is no trained network" in command("replan", "out").err
    (out / "trained.safetensors").unlink()
    assert "run the same command again" in command("replan", "out").err
    (out / "finetune.safetensors").unlink()
    assert "optimize realise out/policy.json" in command("replan", "out").err


def test_an_artifact_that_is_not_the_trained_one_is_refused(
    out: Path, command: Command, subject: tuple[str, ...]
) -> None:
    artifact = out / "network.bitplan"
    trained = artifact.read_bytes()
    done = command("realise", "out/policy.json", *subject, "--recovery", "none", "-o", "out")
    assert done.code == 0, done.err
    for content in (artifact.read_bytes(), trained[:-1], b"something else"):
        artifact.write_bytes(content)
        done = command("replan", "out")
        assert (done.code, "out/network.bitplan is not the network that" in done.err) == (2, True), done.err
        assert "optimize realise out/policy.json" in done.err
    artifact.write_bytes(trained)
    read_earlier(out)


def test_images_and_weights_that_have_changed_are_found(out: Path, command: Command, folder: Path) -> None:
    data = dict(np.load(folder / "data.npz"))
    np.savez(folder / "data.npz", **(data | {"calibration_x": 255 - data["calibration_x"]}))
    done = command("replan", "out")
    assert (done.code, "have changed" in done.err) == (1, True), done.err
    np.savez(folder / "data.npz", **data)
    model = folder / "tiny_network.py"
    model.write_text(model.read_text().replace("manual_seed(1)", "manual_seed(2)"))
    del sys.modules["tiny_network"]
    done = command("replan", "out")
    assert (done.code, "the weights of the model" in done.err) == (2, True), done.err


def test_an_interrupted_command_goes_on_where_it_was(
    out: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bitplan.profiles.journal import Journal

    measured: list[str] = []
    add = Journal.add

    def counted(journal: Journal, name: str, values: Any) -> None:
        if len(measured) == 4:
            raise KeyboardInterrupt
        measured.append(name)
        add(journal, name, values)

    options = ("replan", "out", "--budget", "3kB", "--loss-size", "20")  # losses that no other test has measured
    monkeypatch.setattr(Journal, "add", counted)
    assert command(*options).code == 130
    first = list(measured)
    measured[:] = [""] * 5
    assert command(*options).code == 0
    assert not set(first) & set(measured[5:])
    assert len(measured) > 5


def test_bad_training_images_are_found_before_anything_long(out: Path, command: Command) -> None:
    done = command("replan", "out", "--budget", "3kB", "--finetune", "1epochs", "--train-data", "none.npz")
    assert done.code == 1
    assert "none.npz" in done.err
    assert "measuring" not in done.err
