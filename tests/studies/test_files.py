"""The files that a study leaves for later commands."""

from __future__ import annotations

from pathlib import Path

import pytest

from bitplan.config import Config
from bitplan.studies.files import as_tried, save_tried


@pytest.fixture
def trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The policy file of a trial; the current folder has a configuration of something else."""
    policy = tmp_path / "trials" / "0003" / "policy.json"
    tried = Config(loss_profile=Path("gram"), recovery=("strong",), budget="2kB", model="net:build", data="data.npz")
    save_tried(policy.parent, tried)
    monkeypatch.chdir(tmp_path)
    Path("optimize.yaml").write_text("recovery: [fast]\nbudget: 9MB\nencodings: [int2]\nweights: other.pt\n")
    return policy


def test_a_trial_is_carried_out_as_it_was_tried_whatever_the_current_folder_says(trial: Path) -> None:
    config = as_tried(trial, {"recovery": [], "budget": None}, None)
    assert (config.loss_profile, config.recovery, config.budget) == (Path("gram"), ("strong",), "2kB")
    assert (config.model, config.data, config.weights, config.encodings) == ("net:build", "data.npz", None, ())


def test_options_stand_over_what_a_trial_was_tried_with_even_where_they_are_the_defaults(trial: Path) -> None:
    assert as_tried(trial, {"recovery": ["balanced"]}, None).recovery == ("balanced",)
    named = as_tried(trial, {"budget": "3kB"}, Path("optimize.yaml"))
    assert (named.budget, named.recovery, named.loss_profile) == ("3kB", ("fast",), Path("gram"))


def test_a_trial_is_carried_out_from_any_folder_beside_its_policy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("images", "elsewhere"):
        Path(folder).mkdir()
    Path("net.pt").touch()
    tried = Config(weights=Path("net.pt"), data="cifar10:images", train_data="images", finetune=1)
    save_tried(Path("out/trials/0003"), tried)
    Path("out").rename("moved")
    monkeypatch.chdir("elsewhere")
    config = as_tried(Path("../moved/trials/0003/policy.json"), {"output": None}, None)
    assert config.output.resolve() == tmp_path / "moved/trials/0003/realised"
    assert config.weights == tmp_path / "net.pt"
    assert (config.data, config.train_data) == (f"cifar10:{tmp_path / 'images'}", str(tmp_path / "images"))
    assert as_tried(Path("../moved/trials/0003/policy.json"), {"output": Path("r")}, None).output == Path("r")


def test_names_that_are_no_files_are_kept_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("images").mkdir()
    save_tried(tmp_path, Config(data="mod:images", loss_profile=Path("gram"), device_profile=Path("board")))
    config = as_tried(tmp_path / "policy.json", {}, None)
    assert (config.data, config.loss_profile, config.device_profile) == ("mod:images", Path("gram"), Path("board"))
