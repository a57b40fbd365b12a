"""Keeps other programs from interrupting what is being timed, as far as the system permits."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

PRIORITY = 1
"""The lowest real-time priority is enough: ordinary programs have none."""


@contextmanager
def foreground() -> Iterator[bool]:
    """Runs the calling thread, and threads that it starts, before ordinary programs; yields whether that is permitted
    (on Linux it takes root or CAP_SYS_NICE).

    On a busy machine a network that needs longer than a time slice is interrupted in almost every run, so that even the
    median tells of the other programs; at real-time priority it tells of the machine.
    """
    try:
        before = os.sched_getscheduler(0), os.sched_getparam(0)
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(PRIORITY))
    except (AttributeError, OSError):  # not Linux, or not permitted
        yield False
        return
    try:
        yield True
    finally:
        os.sched_setscheduler(0, *before)
