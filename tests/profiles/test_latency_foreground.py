"""Real-time priority while something is timed."""

from __future__ import annotations

import os

import pytest

from bitplan.profiles.foreground import foreground


def test_the_old_priority_is_restored_whatever_happens() -> None:
    before = os.sched_getscheduler(0)
    with pytest.raises(KeyboardInterrupt), foreground() as permitted:
        assert (os.sched_getscheduler(0) == os.SCHED_FIFO) == permitted
        raise KeyboardInterrupt
    assert os.sched_getscheduler(0) == before


def test_without_permission_timing_goes_on_at_the_usual_priority(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    with foreground() as permitted:
        assert not permitted
