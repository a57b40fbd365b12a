"""Dask as a pool: calls are futures of its scheduler, the bytes of a job a plugin of every worker."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from distributed import Client, LocalCluster, get_worker
from distributed.diagnostics.plugin import WorkerPlugin
from distributed.scheduler import KilledWorker

from bitplan.errors import UsageError
from bitplan.profiles.workers import Workers
from bitplan.profiles.workers.remote import Delivery, forget

SECONDS = 30
"""Until a scheduler must have answered."""


class Futures:
    """The scheduler itself gives what a dead worker had begun to another one, until too many have died of it."""

    deaths: tuple[type[BaseException], ...] = (KilledWorker,)

    def __init__(self, client: Client, size: int) -> None:
        self.size, self.in_flight = size, size if size == 1 else 2 * size
        self.client = client

    def submit(self, call: Callable[[], Any]) -> Future[Any]:
        future: Future[Any] = self.client.submit(_called, call, pure=False)
        return future

    @contextmanager
    def delivered(self, job: str, content: bytes) -> Iterator[Delivery]:
        plugin = Content(job, content)
        self.client.register_plugin(plugin)
        try:
            yield OnWorker(plugin.name)
        finally:
            self.client.unregister_worker_plugin(plugin.name)


class Content(WorkerPlugin):  # type: ignore[misc]  # Dask has no types
    """Sent to every worker, and to those that come later."""

    def __init__(self, job: str, content: bytes) -> None:
        self.name, self.content = f"bitplan-{job}", content

    def teardown(self, worker: Any) -> None:
        forget()


@dataclass(frozen=True)
class OnWorker:
    name: str

    def fetch(self) -> bytes:
        content: bytes = get_worker().plugins[self.name].content
        return content


def _called(call: Callable[[], Any]) -> Any:
    return call()


@contextmanager
def connected(workers: Workers) -> Iterator[Futures]:
    with _client(workers) as client:
        ended = False

        def tell(event: Any) -> None:
            _, message = event
            if not ended and isinstance(message, dict) and message.get("action") == "remove-worker":
                workers.say("a worker died; what it had begun is given to another one")

        client.subscribe_topic("all", tell)
        try:
            yield Futures(client, workers.jobs or max(sum(client.ncores().values()), 1))
        finally:
            ended = True
            client.unsubscribe_topic("all")


@contextmanager
def _client(workers: Workers) -> Iterator[Client]:
    if workers.cluster:
        try:
            client = Client(workers.cluster, timeout=SECONDS, set_as_default=False)
        except (OSError, ValueError) as error:
            raise UsageError(
                f"no scheduler of Dask answers at {workers.cluster!r}: {error}; start one there, or correct --cluster"
            ) from error
        with client:
            yield client
        return
    # Memory is the user's: a limit for each worker would be a share that nobody chose.
    options = {"threads_per_worker": 1, "memory_limit": 0, "dashboard_address": None, "silence_logs": logging.ERROR}
    with LocalCluster(n_workers=workers.jobs or None, **options) as cluster, Client(cluster) as client:
        yield client
