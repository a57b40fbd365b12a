"""What measuring asks of a loaded artifact; `bitplan.kernels.runtime.Runtime` offers it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Inputs = Mapping[str, NDArray[Any]]


class Executor(Protocol):
    """A loaded artifact that tells its steps and times itself. It warms nothing up: its first run finds cold caches."""

    @property
    def steps(self) -> Sequence[str]:
        """The names of the executor's steps, in the order in which they run."""

    def time_steps(self, inputs: Inputs, runs: int) -> NDArray[np.float64]:
        """Seconds of every step in each of `runs` consecutive runs: [runs, steps]."""

    def time_runs(self, inputs: Inputs, runs: int) -> NDArray[np.float64]:
        """Seconds of each of `runs` consecutive runs as a user sees them, from raw input to output: [runs]."""


Load = Callable[[bytes, int], Executor]
"""Makes an executor from an artifact's bytes and a number of threads."""


def load_runtime(artifact: bytes, threads: int, isa: str | None = None) -> Executor:
    """The executor that really runs artifacts, with the kernels of the given ISA level or of the usual one."""
    from bitplan.kernels.runtime import Runtime  # here, because planning works where the kernels are not built

    return Runtime.from_bytes(artifact, threads=threads, isa=isa)
