"""The files that a study leaves for later commands."""

from __future__ import annotations

from pathlib import Path

import pytest

from bitplan.config import Config, save_resolved
from bitplan.studies.files import as_tried


@pytest.fixture
def trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The policy file of a trial; the current folder has a configuration of something else."""
    policy = tmp_path / "trials" / "0003" / "policy.json"
    tried = Config(loss_profile=Path("gram"), recovery=("strong",), budget="2kB", model="net:build", data="data.npz")
    save_resolved(policy.parent / "optimize.yaml", tried)
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
