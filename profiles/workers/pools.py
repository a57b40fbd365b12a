"""Where calls can be made: processes of this machine (loky), Ray, Dask. Each pool says how its calls end when a worker
dies, and how the bytes of a job reach every worker once."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Future
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from joblib import cpu_count
from joblib.externals.loky import process_executor

from bitplan.profiles.workers import Workers
from bitplan.profiles.workers.remote import Delivery
from bitplan.user_code import require_package

EXTRA = "cluster"


class Pool(Protocol):
    """`size` workers; calls beyond `in_flight` are not submitted. `deaths`: what the future of a call raises where the
    worker died, not the call."""

    size: int
    in_flight: int
    deaths: tuple[type[BaseException], ...]

    def submit(self, call: Callable[[], Any]) -> Future[Any]:
        """The call's future; its callbacks run in any thread."""

    def delivered(self, job: str, content: bytes) -> AbstractContextManager[Delivery]:
        """The way for workers, also of such as come later, to the bytes of a job."""


def opened(workers: Workers) -> AbstractContextManager[Pool]:
    """The pool that is asked for; what it starts, it stops. Raises UsageError for a package that is not installed and
    for a cluster that does not answer."""
    return POOLS[workers.backend](workers)


class Lane:
    """One loky process, and another one when it has died."""

    def __init__(self) -> None:
        self.waiting = 0
        self._lock = threading.Lock()
        self._executor = _process()

    def submit(self, call: Callable[[], Any]) -> Future[Any]:
        """Raises BrokenExecutor where the process is found dead; the next call has another one."""
        with self._lock:
            try:
                future: Future[Any] = self._executor.submit(call)
            except BrokenExecutor:
                self._executor = _process()
                raise
            self.waiting += 1
        future.add_done_callback(self._done)
        return future

    def stop(self) -> None:
        """Ends the process, also in the middle of a call."""
        with self._lock:
            executor = self._executor
        executor.shutdown(wait=True, kill_workers=True)  # its thread takes the lock for what is under way

    def _done(self, _: Future[Any]) -> None:
        with self._lock:
            self.waiting -= 1


def _process() -> Any:
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    return process_executor.ProcessPoolExecutor(1, env=threads, initializer=_settle_in, initargs=(os.getpid(),))


def _settle_in(parent: int) -> None:
    """A worker ends with the process that it works for, even one that was killed; and it is not taken for leaking when
    it keeps values between calls."""
    process_executor._USE_PSUTIL = False

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class Processes:
    """Processes of this machine, each with an executor of its own: the others go on when one dies."""

    deaths: tuple[type[BaseException], ...] = (BrokenExecutor,)

    def __init__(self, size: int) -> None:
        self.size = self.in_flight = size
        self.lanes = [Lane() for _ in range(size)]

    def submit(self, call: Callable[[], Any]) -> Future[Any]:
        return min(self.lanes, key=lambda lane: lane.waiting).submit(call)

    @contextmanager
    def delivered(self, job: str, content: bytes) -> Iterator[Delivery]:
        with tempfile.TemporaryDirectory(prefix="bitplan-") as folder:
            path = Path(folder) / job
            path.write_bytes(content)
            yield InFile(path)


@dataclass(frozen=True)
class InFile:
    path: Path

    def fetch(self) -> bytes:
        return self.path.read_bytes()


@contextmanager
def processes(workers: Workers) -> Iterator[Pool]:
    pool = Processes(workers.jobs or cpu_count())
    try:
        yield pool
    finally:
        for lane in pool.lanes:
            lane.stop()


@contextmanager
def ray(workers: Workers) -> Iterator[Pool]:
    require_package("ray", "the backend ray", EXTRA)
    from bitplan.profiles.workers.ray_pool import connected

    with connected(workers) as pool:
        yield pool


@contextmanager
def dask(workers: Workers) -> Iterator[Pool]:
    require_package("distributed", "the backend dask", EXTRA)
    from bitplan.profiles.workers.dask_pool import connected

    with connected(workers) as pool:
        yield pool


POOLS: dict[str, Callable[[Workers], AbstractContextManager[Pool]]] = {"loky": processes, "ray": ray, "dask": dask}
