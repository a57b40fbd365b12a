"""What happens inside a worker, and how its answers are recognised.

An answer carries the digest of the job (the bytes that the worker was sent), of the unit and of the values: one that
belongs to another job, or was damaged, is refused. It also says which code made it.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import socket
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Protocol

from bitplan.errors import BitplanError
from bitplan.profiles.workers import Evaluator, Unit, Vector, one_thread

PACKAGES = (
    "bitplan",
    "bitplan.encodings",
    "bitplan.policies",
    "bitplan.policies.realise",
    "bitplan.profiles",
    "bitplan.profiles.estimators",
    "bitplan.profiles.workers",
)
"""All whose sources can decide a result."""


class Delivery(Protocol):
    """How a worker gets at the bytes of a job; small, and travels with every block."""

    def fetch(self) -> bytes:
        """The bytes, from wherever the pool has put them."""


@dataclass(frozen=True)
class Answer:
    """The values of a block's units, each with its digest; or the error that one of them raised."""

    values: Sequence[tuple[str, Vector]]
    code: str
    worker: str
    error: BitplanError | None = None


_evaluators: dict[int, tuple[str, Evaluator[Any]]] = {}
"""By thread (workers of Dask can have several), the job that it works on: a worker reads it once."""


def evaluate(job: str, delivery: Delivery, units: Sequence[Unit]) -> Answer:
    """Evaluates a block of units of the job with this SHA-256, here in a worker."""
    worker = f"process {os.getpid()} on {socket.gethostname()}"
    found: list[tuple[str, Vector]] = []
    with one_thread():
        try:
            evaluator = _evaluator(job, delivery)
            for unit in units:
                values = evaluator.evaluate(unit)
                found.append((digest(job, unit, values), values))
        except BitplanError as error:
            return Answer(found, code_version(), worker, error)
    return Answer(found, code_version(), worker)


def digest(job: str, unit: Unit, values: Vector) -> str:
    """Of a result: job, unit and values, SHA-256 in hexadecimal."""
    head = json.dumps([job, unit.name, str(values.dtype), values.shape]).encode()
    return hashlib.sha256(head + values.tobytes()).hexdigest()


def job_digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@cache
def code_version() -> str:
    """Of the libraries, and a SHA-256 of the sources."""
    import numpy
    import torch

    sources = hashlib.sha256()
    for package in PACKAGES:
        for file in sorted(files(package).iterdir(), key=lambda file: file.name):
            if file.name.endswith(".py"):
                sources.update(f"{package} {file.name}".encode() + file.read_bytes())
    return f"torch {torch.__version__}, numpy {numpy.__version__}, bitplan {sources.hexdigest()[:16]}"


def forget() -> None:
    """Frees what the jobs of this process take."""
    _evaluators.clear()


def _evaluator(job: str, delivery: Delivery) -> Evaluator[Any]:
    thread = threading.get_ident()
    known, evaluator = _evaluators.get(thread, ("", None))
    if evaluator is None or known != job:
        _evaluators.pop(thread, None)
        del evaluator  # its memory is free before the next one takes some
        content = delivery.fetch()
        if job_digest(content) != job:
            raise BitplanError("a worker was sent another job than the one it was asked for; run the command again")
        evaluator = pickle.loads(content)
        _evaluators[thread] = job, evaluator
    return evaluator
