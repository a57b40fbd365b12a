"""Ray as a pool: calls are tasks, the bytes of a job an object in its store."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import NodeDiedError, WorkerCrashedError

from bitplan.errors import UsageError
from bitplan.profiles.workers import Workers
from bitplan.profiles.workers.remote import Delivery


class Tasks:
    """Tasks that Ray itself does not try again: who does says so."""

    deaths: tuple[type[BaseException], ...] = (WorkerCrashedError, NodeDiedError)

    def __init__(self, size: int) -> None:
        self.size, self.in_flight = size, size if size == 1 else 2 * size
        self._remote = ray.remote(num_cpus=1, max_retries=0)(_called)

    def submit(self, call: Callable[[], Any]) -> Future[Any]:
        future: Future[Any] = self._remote.remote(call).future()
        return future

    @contextmanager
    def delivered(self, job: str, content: bytes) -> Iterator[Delivery]:
        yield InStore(ray.put(content))


@dataclass(frozen=True)
class InStore:
    """Inside of another object Ray leaves a reference as it is."""

    reference: Any

    def fetch(self) -> bytes:
        content: bytes = ray.get(self.reference)
        return content


def _called(call: Callable[[], Any]) -> Any:
    return call()


@contextmanager
def connected(workers: Workers) -> Iterator[Tasks]:
    """A program that is connected to Ray already keeps its connection."""
    own = not ray.is_initialized()
    if own:
        quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            if workers.cluster:
                ray.init(address=workers.cluster, **quiet)
            else:
                ray.init(address="local", num_cpus=workers.jobs or None, include_dashboard=False, **quiet)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise UsageError(
                f"Ray does not answer at {workers.cluster or 'this machine'}: {error}"
                "; start it there, or correct --cluster"
            ) from error
    try:
        yield Tasks(workers.jobs or max(int(ray.cluster_resources().get("CPU", 1)), 1))
    finally:
        if own:
            ray.shutdown()
