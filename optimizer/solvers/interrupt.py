"""Ctrl-C while a solver's C++ code runs."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import TypeVar

Result = TypeVar("Result")

PATIENCE = 2.0
"""Seconds that a stopped solver gets to return; HiGHS may be deep in a linear program that it does not leave."""


def interruptible(run: Callable[[], Result], stop: Callable[[], object]) -> Result:
    """The result of `run`, computed in a thread of its own, so that KeyboardInterrupt reaches the caller at once;
    `stop` then asks `run` to return early. A thread that does not is left behind; it ends with the process."""
    future: Future[Result] = Future()

    def work() -> None:
        try:
            future.set_result(run())
        except BaseException as error:  # noqa: BLE001 - handed to the caller
            future.set_exception(error)

    thread = Thread(target=work, daemon=True)
    thread.start()
    try:
        return future.result()
    except KeyboardInterrupt:
        stop()
        thread.join(PATIENCE)
        raise
