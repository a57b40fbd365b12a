"""Interleaving and quantiles."""

from __future__ import annotations

import pytest
from harness.timing import Effort, Quantiles, interleave, per_part


class Clock:
    """A candidate that always takes `seconds`, but for the first run of each burst, and notes when it was asked."""

    def __init__(self, name: str, seconds: float, asked: list[str]) -> None:
        self.name, self.seconds, self.asked = name, seconds, asked

    def __call__(self, runs: int) -> list[float]:
        self.asked.append(self.name)
        return [100.0] + [self.seconds] * (runs - 1)


def test_candidates_take_turns_and_first_runs_do_not_count() -> None:
    asked: list[str] = []
    candidates = {name: Clock(name, seconds, asked) for name, seconds in (("a", 0.001), ("b", 0.1))}
    samples = interleave(candidates, Effort(rounds=6, seconds=0.01))
    turns = [asked[i : i + 2] for i in range(2, len(asked), 2)]  # after one burst each to learn the duration
    assert len(turns) == 6
    assert all(sorted(turn) == ["a", "b"] for turn in turns)
    assert ["a", "b"] in turns
    assert ["b", "a"] in turns
    assert samples == {"a": [0.001] * 60, "b": [0.1] * 18}


def test_quantiles_are_milliseconds_of_the_low_tenth_and_the_median() -> None:
    found = Quantiles.of([i / 1000 for i in range(11)])
    assert (found.low, found.median, found.runs) == (pytest.approx(1.0), pytest.approx(5.0), 11)


def test_a_layer_is_what_it_adds_to_a_call() -> None:
    found = per_part(Quantiles(9.5, 10.0, 40), Quantiles(1.5, 2.0, 30), 8)
    assert found == Quantiles(1.0, 1.0, 30)
