"""Blocks of units to a pool and results back, through joblib.

joblib's own backends for loky and Ray give up everything under way when one worker dies. Here each call is a future of
the pool; where its worker died, that call alone is given out again.
"""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from typing import Any

from joblib import Parallel, delayed
from joblib.parallel import ParallelBackendBase

from bitplan.errors import BitplanError
from bitplan.profiles.workers import Evaluator, U, Vector, Workers
from bitplan.profiles.workers.pools import Pool
from bitplan.profiles.workers.remote import Answer, Delivery, code_version, digest, evaluate, job_digest

TRIES = 3
"""Workers that may die of the same block."""


def distribute(evaluator: Evaluator[U], blocks: Sequence[Sequence[U]], workers: Workers) -> Generator[tuple[U, Vector]]:
    """Every unit with its values, as workers, who are started, finish them. Raises as `carry_out`."""
    pool = workers.pool
    assert pool is not None
    content = pickle.dumps(evaluator, protocol=pickle.HIGHEST_PROTOCOL)
    job = job_digest(content)
    with pool.delivered(job, content) as delivery:
        parallel = Parallel(
            n_jobs=pool.size,
            backend=Resubmitting(pool, workers.say),
            batch_size=1,
            pre_dispatch=pool.in_flight,
            return_as="generator_unordered",
        )
        calls = (delayed(_numbered)(number, job, delivery, block) for number, block in enumerate(blocks))
        answers = parallel(calls)
        try:
            for number, answer in answers:
                yield from _checked(job, blocks[number], answer)
        finally:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # joblib tells of calls that an interruption leaves unanswered
                answers.close()


def _numbered(number: int, job: str, delivery: Delivery, units: Sequence[Any]) -> tuple[int, Answer]:
    return number, evaluate(job, delivery, units)


def _checked(job: str, block: Sequence[U], answer: Answer) -> Iterator[tuple[U, Vector]]:
    """The results of an answer to this block. Raises BitplanError for one that is not."""
    if answer.code != code_version():
        raise BitplanError(
            f"the worker {answer.worker} runs other code ({answer.code}) than this process ({code_version()}), so its "
            "results would differ; install the same versions on every machine"
        )
    for unit, (stated, values) in zip(block, answer.values, strict=answer.error is None):
        if stated != digest(job, unit, values):
            raise BitplanError(
                f"the worker {answer.worker} sent a result that does not belong to {unit.title} of this job, or was "
                "damaged on its way; what was finished is kept, run the command again"
            )
        yield unit, values
    if answer.error is not None:
        raise answer.error


class Resubmitting(ParallelBackendBase):  # type: ignore[misc]  # joblib has no types
    """A backend of joblib over a pool's futures."""

    supports_retrieve_callback = True

    def __init__(self, pool: Pool, say: Callable[[str], None]) -> None:
        super().__init__(nesting_level=0)
        self.pool, self.say = pool, say
        self.ended = False

    def effective_n_jobs(self, n_jobs: int) -> int:
        # At 1 joblib would leave the backend out and compute in this process.
        return max(self.pool.size, 2)

    def configure(self, n_jobs: int = 1, parallel: Parallel | None = None, **_: Any) -> int:
        self.parallel = parallel
        return self.effective_n_jobs(n_jobs)

    def submit(self, func: Callable[[], Any], callback: Callable[[Any], None] | None = None) -> Future[Any]:
        result: Future[Any] = Future()
        if callback is not None:
            result.add_done_callback(callback)
        self._try(func, result, TRIES)
        return result

    def abort_everything(self, ensure_ready: bool = True) -> None:
        self.ended = True

    def terminate(self) -> None:
        self.ended = True

    def retrieve_result_callback(self, out: Future[Any]) -> Any:
        return out.result()

    def _try(self, func: Callable[[], Any], result: Future[Any], tries: int) -> None:
        def settle(done: Future[Any]) -> None:
            error = CancelledError() if done.cancelled() else done.exception()
            if isinstance(error, self.pool.deaths):
                again(error)
            elif error is not None:
                result.set_exception(error)
            else:
                result.set_result(done.result())

        def again(error: BaseException) -> None:
            if self.ended or tries == 1:
                result.set_exception(error if self.ended else _given_up(error))
                return
            self.say("a worker died; what it had begun is given to another one")
            self._try(func, result, tries - 1)

        try:
            future = self.pool.submit(func)
        except self.pool.deaths as error:
            again(error)
        else:
            future.add_done_callback(settle)


def _given_up(error: BaseException) -> BitplanError:
    return BitplanError(
        f"{TRIES} workers died of the same work ({type(error).__name__}: {str(error).strip().splitlines()[0]}); if memory "
        "ran out, ask for fewer --jobs: each takes what the measurement takes in one process. What was finished is kept"
    )
