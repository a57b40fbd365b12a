"""Ctrl-C while a solver's C++ code runs."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")


def interruptible(run: Callable[[], Result], stop: Callable[[], object]) -> Result:
    """The result of `run`, computed in a thread of its own, so that KeyboardInterrupt reaches the caller at once;
    `stop` then makes `run` return early."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(run)
        try:
            return future.result()
        except BaseException:
            stop()
            raise
