"""What every engine offers: subjects that are loaded once, checked once against a reference and then timed in bursts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from time import perf_counter
from typing import Any, Protocol, cast

from .workloads import Workload

ENGINES = ("bitplan", "onnxruntime", "openvino", "peak")
PEERS = ("onnxruntime", "openvino")


class Unavailable(Exception):
    """The engine cannot run this workload in this variant; the message says why, and the candidate is left out."""


@dataclass
class Subject:
    """One loaded workload.

    burst: seconds of each of `runs` consecutive calls;
    error: the largest difference from the reference, over the reference's largest magnitude;
    tolerance: what `error` may be;
    about: settings, what is inside the time, how the engine really executes it.
    """

    burst: Callable[[int], list[float]]
    error: Callable[[], float]
    tolerance: float
    about: dict[str, Any] = field(default_factory=dict)


class Engine(Protocol):
    """A module `harness.on_<engine>`."""

    def load(self, workload: Workload, variant: str, threads: int, level: str) -> Subject:
        """Raises Unavailable."""


def engine(name: str) -> Engine:
    if name not in ENGINES:
        raise ValueError(f"unknown engine {name!r}; there are {list(ENGINES)}")
    return cast(Engine, import_module(f"{__package__}.on_{name}"))


def timed_calls(call: Callable[[], object]) -> Callable[[int], list[float]]:
    """A burst of `call`s, each between two readings of the clock."""

    def burst(runs: int) -> list[float]:
        seconds = []
        for _ in range(runs):
            start = perf_counter()
            call()
            seconds.append(perf_counter() - start)
        return seconds

    return burst
