"""Choosing how losses are found: `--loss-profile NAME`, and what becomes of it in files and plans."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bitplan.optimizer.frontier.file import read_frontier
from bitplan.policies.policy_file import read_policy
from bitplan.profiles.link import Link
from bitplan.profiles.loss import LossProfile
from bitplan.profiles.loss import cache_path as cached

Command = Callable[..., Any]
SUBJECT = ["--model", "tiny_network:build", "--data", "data.npz", "--encodings", "int8,int3,binary"]


def test_profile_stores_the_estimator_and_plan_takes_what_the_file_says(command: Command, folder: Path) -> None:
    stored = command("profile", *SUBJECT, "--loss-profile", "gram", "-o", "stored")
    assert stored.code == 0, stored.err
    said = " ".join(stored.err.split())
    assert "at most 13 evaluations" in said
    assert "predicted and measured losses: " in said
    profile = LossProfile.load(folder / "stored" / "loss.arrow")
    assert profile.estimator == "gram"
    assert profile.pairs is not None
    assert profile.link != Link()
    assert cached(profile.metric, profile.hashes, "gram").exists()

    planned = command("plan", "stored", "--encodings", "int8,int3,binary", "--budget", "3kB", "--json")
    assert planned.code == 0, planned.err
    assert "optimal" in planned.err or "feasible" in planned.err
    named = command("plan", "stored", "--encodings", "int8,int3,binary", "--budget", "3kB", "--loss-profile", "gram")
    assert named.code == 0, named.err
    other = command("plan", "stored", "--encodings", "int8,int3,binary", "--budget", "3kB", "--loss-profile", "clado")
    assert other.code == 2
    assert "measured by the estimator gram" in other.err
    assert "optimize profile --loss-profile clado" in other.err


def test_no_policies_no_link_and_what_is_known_is_measured_once(command: Command, folder: Path) -> None:
    first = command("profile", *SUBJECT, "--link-policies", "0", "-o", "one")
    assert first.code == 0, first.err
    assert LossProfile.load(folder / "one" / "loss.arrow").link == Link()
    assert "not calibrated" in first.err and "tempered score, not in kl" in " ".join(first.err.split())
    second = command("profile", *SUBJECT, "--link-policies", "4", "-o", "two")
    assert "every choice is known" in second.err
    assert "measuring whole policies" in second.err
    third = command("profile", *SUBJECT, "--link-policies", "4", "-o", "three")
    assert "measuring whole policies" not in third.err
    two, three = (LossProfile.load(folder / name / "loss.arrow") for name in ("two", "three"))
    assert two.link == three.link != Link()
    assert "not calibrated" not in second.err + third.err
    for name, scale in (("one", "tempered score"), ("two", "kl")):
        options = (name, "--encodings", "int8,int3,binary")
        planned = command("plan", *options, "--budget", "3kB", "--json").json
        assert planned["loss"]["predicted_scale"] == scale
        assert read_policy(folder / name / "policy.json").settings["loss_scale"] == scale
        called = command("frontier", *options, "--points", "3", "--json")
        assert called.json["loss_scale"] == read_frontier(folder / name / "frontier.arrow").scale == scale
        assert f"losses are in {scale}" in " ".join(called.err.split())
        assert f'"scale": "{scale}"' in (folder / name / "frontier.html").read_text()
    fourth = command("profile", *SUBJECT, "--link-policies", "6", "-o", "four")
    assert "measuring whole policies" in fourth.err
    assert LossProfile.load(folder / "four" / "loss.arrow").link_policies == 6


def test_a_link_of_fewer_policies_than_it_has_parameters_is_refused(command: Command) -> None:
    called = command("profile", *SUBJECT, "--link-policies", "2", "-o", "out")
    assert called.code == 2
    assert "needs 3 at least" in called.err


def test_a_named_file_keeps_its_estimator(command: Command, folder: Path) -> None:
    command("profile", *SUBJECT, "--loss-profile", "gram", "--link-policies", "4", "-o", "stored")
    called = command("profile", *SUBJECT, "--loss-profile", "stored/loss.arrow", "-o", "again")
    assert called.code == 0, called.err
    before, after = (LossProfile.load(folder / name / "loss.arrow") for name in ("stored", "again"))
    assert after.estimator == "gram"
    np.testing.assert_array_equal(after.pairs, before.pairs)
    assert after.link == before.link


def test_a_misspelt_estimator_is_neither_that_nor_a_file(command: Command) -> None:
    called = command("profile", *SUBJECT, "--loss-profile", "garm", "-o", "out")
    assert called.code == 2
    assert "neither an estimator nor a file" in called.err
    assert "did you mean 'gram'" in called.err


def test_the_configuration_names_estimators_too(command: Command, folder: Path) -> None:
    (folder / "optimize.yaml").write_text("loss_profile: orthogonality\nlink_policies: 4\n")
    called = command("profile", *SUBJECT, "-o", "out")
    assert called.code == 0, called.err
    assert LossProfile.load(folder / "out" / "loss.arrow").estimator == "orthogonality"


def test_layers_of_a_module_are_measured_alone(command: Command) -> None:
    called = command("--hybrid", *SUBJECT, "--loss-profile", "clado", "--budget", "3kB", "-o", "out")
    assert called.code == 2
    assert "separable only" in called.err
