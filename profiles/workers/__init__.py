"""Where the units of a measurement are evaluated: in this process, or by workers on this or other machines.

Every unit is evaluated alone, with one thread of torch, in batches and chunks that do not depend on the workers; so
results are the same to the last bit wherever CPUs have the same instruction sets. Work goes through joblib
(`dispatch.py`) to loky's processes, Ray or Dask (`pools.py`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from bitplan.errors import UsageError

if TYPE_CHECKING:
    from bitplan.profiles.workers.pools import Pool

LOCAL = "loky"

Vector = NDArray[np.float32]


class Unit(Protocol):
    """The smallest piece of work."""

    @property
    def name(self) -> str:
        """Its name in the journal."""

    @property
    def title(self) -> str:
        """What it is, in a progress report."""


U = TypeVar("U", bound=Unit)
U_contra = TypeVar("U_contra", bound=Unit, contravariant=True)


class Evaluator(Protocol[U_contra]):
    """Evaluates units in any order, with the same result in any order. It can be pickled: that is what workers get,
    once each. Units that follow each other in a block are cheaper together."""

    def evaluate(self, unit: U_contra) -> Vector:
        """Raises BitplanError for what the user can mend."""


@dataclass(frozen=True)
class Workers:
    """`jobs` processes (0: as many as the backend has cores) of `backend`: loky on this machine, or ray or dask, on the
    cluster at the address `cluster` or on a local one of their own. `say` is told when a worker dies.

    Raises UsageError for an address where the backend has none."""

    jobs: int = 1
    backend: str = LOCAL
    cluster: str | None = None
    say: Callable[[str], None] = logging.getLogger("bitplan").warning
    pool: Pool | None = None
    """Where they are started already; see `started`."""

    def __post_init__(self) -> None:
        if self.cluster and self.backend == LOCAL:
            raise UsageError(f"the backend {LOCAL} has no cluster {self.cluster!r}; name the backend ray or dask too")

    @property
    def here(self) -> bool:
        """All is done in this process."""
        return self.backend == LOCAL and self.jobs == 1


HERE = Workers()


@contextmanager
def started(workers: Workers) -> Iterator[Workers]:
    """The workers, started once for all that is carried out within. Raises UsageError where they cannot be."""
    if workers.here or workers.pool:
        yield workers
        return
    from bitplan.profiles.workers.pools import opened

    with opened(workers) as pool:
        yield replace(workers, pool=pool)


def carry_out(
    evaluator: Evaluator[U],
    blocks: Sequence[Sequence[U]],
    keep: Callable[[U, Vector], None],
    report: Callable[[str], None],
    workers: Workers = HERE,
) -> None:
    """Evaluates every unit; `keep` is called with each result as soon as it is known, in this process alone and in any
    order of blocks. Units of a block go to one worker; what a worker that dies had begun, another one does again.
    Raises what `evaluate` raises, and BitplanError where workers keep dying or run other code."""
    if workers.here:
        with one_thread():
            for unit in (unit for block in blocks for unit in block):
                report(unit.title)
                keep(unit, evaluator.evaluate(unit))
        return
    from bitplan.profiles.workers.dispatch import distribute

    with started(workers) as crew, closing(distribute(evaluator, blocks, crew)) as results:
        for unit, values in results:
            keep(unit, values)
            report(unit.title)


@contextmanager
def one_thread() -> Iterator[None]:
    """torch computes with one thread: how sums are split among several decides their last bits."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


__all__ = ["HERE", "LOCAL", "Evaluator", "Unit", "Vector", "Workers", "carry_out", "one_thread", "started"]
