"""Recorded problems come back as they were, and damage is refused with its place and remedy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bitplan.errors import FileFormatError
from bitplan.optimizer.problem import Problem
from bitplan.optimizer.problem_file import read_problem, write_problem


def same(first: Problem, second: Problem) -> bool:
    if (first.groups, first.objective, len(first.resources)) != (
        second.groups,
        second.objective,
        len(second.resources),
    ):
        return False
    for a, b in zip(first.resources, second.resources, strict=True):
        plain = ("name", "constant", "limit", "target", "resolution", "unit", "asked")
        if any(getattr(a, name) != getattr(b, name) for name in plain) or set(a.pairs) != set(b.pairs):
            return False
        if not all(np.array_equal(x, y) for x, y in zip(a.linear, b.linear, strict=True)):
            return False
        if not all(np.array_equal(a.pairs[link], b.pairs[link]) for link in a.pairs):
            return False
    links = set(first.forbidden)
    return links == set(second.forbidden) and all(
        np.array_equal(first.forbidden[link], second.forbidden[link]) for link in links
    )


@pytest.mark.parametrize("seed", range(20))
def test_a_problem_comes_back_as_it_was(seed: int, random_problem: Callable[..., Problem], tmp_path: Path) -> None:
    problem = random_problem(seed)
    write_problem(tmp_path / "p.arrow", problem, "made up")
    assert same(read_problem(tmp_path / "p.arrow"), problem)


def test_the_same_problem_gives_the_same_bytes(random_problem: Callable[..., Problem], tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_problem(tmp_path / name, random_problem(1))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_damage_and_other_files_are_refused(random_problem: Callable[..., Problem], tmp_path: Path) -> None:
    path = tmp_path / "p.arrow"
    write_problem(path, random_problem(2))
    data = path.read_bytes()
    for place in range(0, len(data), 97):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        with pytest.raises(FileFormatError, match=r"p\.arrow.*delete the file and record the problem"):
            read_problem(path)
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(FileFormatError, match="delete the file and record the problem"):
        read_problem(path)
    with pytest.raises(FileFormatError, match="does not exist; record the problem"):
        read_problem(tmp_path / "missing.arrow")
