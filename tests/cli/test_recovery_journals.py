"""Journals of recovery: a training that was interrupted does not cost another recovery, and none is left behind for ever."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from bitplan.recovery_journals import KEPT_DAYS, recovery_journal

Command = Callable[..., Any]


def test_recovery_is_not_repeated_where_training_was_interrupted(
    tiny: Command, command: Command, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bitplan.profiles.journal import Journal

    cache = tmp_path / "cache"
    monkeypatch.setenv("BITPLAN_CACHE", str(cache))
    assert tiny("--budget", "2kB", "--dry-run", "--link-policies", "0", "-o", "out").code == 0
    added: list[str] = []
    add = Journal.add

    def noted(journal: Journal, name: str, values: Any) -> None:
        added.append(name)
        add(journal, name, values)

    def interrupt(*_: object, **__: object) -> NoReturn:
        raise KeyboardInterrupt

    subject = ("--model", "tiny_network:build", "--data", "data.npz", "--finetune", "1epochs")
    options = ("realise", "out/policy.json", *subject, "--finetune-option", "batch=8", "-o", "out")
    monkeypatch.setattr(Journal, "add", noted)
    with monkeypatch.context() as patched:
        patched.setattr("bitplan.policies.realise.finetune.finetune", interrupt)
        assert command(*options).code == 130
    assert added
    added.clear()
    assert command(*options).code in (0, 4)
    assert added == []
    assert not list((cache / "recovery").glob("*"))


def test_a_training_leaves_no_journal_of_what_it_was_compared_with(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BITPLAN_CACHE", str(tmp_path))
    options = ("--budget", "3kB", "--encodings", "int8,int4", "--compare", "int8", "--link-policies", "0")
    training = ("--finetune", "1epochs", "--finetune-option", "batch=8")
    subject = ("--model", "tiny_network:build", "--data", "data.npz")
    assert command(*subject, *options, *training, "-o", "out").code in (0, 4)
    assert not list((tmp_path / "recovery").glob("*"))


@pytest.mark.parametrize("keep", [False, True])
def test_a_journal_is_removed_at_the_end_unless_a_training_follows_and_when_it_is_old(
    tmp_path: Path, keep: bool
) -> None:
    path, old = tmp_path / "new.journal", [tmp_path / "old.journal", tmp_path / "killed.journal.lock"]
    long_ago = time.time() - 86_400 * (KEPT_DAYS + 1)
    for file in old:
        file.write_text("x")
        os.utime(file, (long_ago, long_ago))
    with recovery_journal(path, keep=keep) as journal:
        assert journal is not None
    assert path.exists() == keep
    assert not any(file.exists() for file in old)


def test_an_interrupted_recovery_keeps_its_journal(tmp_path: Path) -> None:
    path = tmp_path / "one.journal"
    with pytest.raises(KeyboardInterrupt), recovery_journal(path, keep=False):
        raise KeyboardInterrupt
    assert path.exists()


def test_of_two_at_once_one_goes_without(tmp_path: Path) -> None:
    path = tmp_path / "one.journal"
    with recovery_journal(path, keep=True) as first, recovery_journal(path, keep=False) as second:
        assert first is not None
        assert second is None
    assert path.exists()
