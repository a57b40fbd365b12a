"""Our evaluator, the same for every assignment: exact bytes of the artifact, and losses on test images after the same
recovery on the same calibration images. Nobody's own quantiser is used."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
from networks import Case, simulated
from numpy.typing import NDArray

from bitplan.kernels.artifact import artifact_bytes
from bitplan.policies.realise import realise
from bitplan.profiles.journal import Journal
from bitplan.profiles.measure_loss import profile_hashes
from bitplan.profiles.metrics import divergence, log_probabilities
from bitplan.simulate import Simulator

from .assignment import Assignment, bits_per_weight, digest, variants_of


@dataclass(frozen=True)
class Measured:
    """An assignment carried out. `losses` [N]: KL to full precision of every test image; `hits` [N]: 1 where its class
    was found, else 0."""

    bytes: int
    bits_per_weight: float
    losses: NDArray[np.float32]
    hits: NDArray[np.float32]

    @property
    def loss(self) -> float:
        return float(self.losses.mean(dtype=np.float64))

    @property
    def accuracy(self) -> float:
        return float(self.hits.mean(dtype=np.float64))


class Evaluator:
    """Of one network on its first `images` test images; what was measured is kept in a journal in `folder`. Use as a
    context manager."""

    def __init__(self, case: Case, images: int, folder: Path) -> None:
        self.case = case
        self.test, self.labels = case.test[:images], case.labels[:images]
        tested = hashlib.sha256(self.test.tobytes() + self.labels.tobytes()).hexdigest()
        key = json.dumps([profile_hashes(case.network, case.weights, case.calibration), tested])
        self._journal = Journal(folder / f"{case.name}.evaluations.journal", key)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._journal.__exit__(None, None, None)

    @cached_property
    def _simulator(self) -> Simulator:
        return Simulator(self.case.network, self.case.weights)

    @cached_property
    def reference(self) -> NDArray[np.float32]:
        """The outputs of the full-precision network."""
        return simulated(self._simulator, self.test, self.case.batch)

    def full_precision_accuracy(self) -> float:
        return float((self.reference.argmax(1) == self.labels).mean())

    def measure(self, bits: Assignment) -> Measured:
        """Raises UsageError for an assignment that does not fit the network."""
        name = digest(bits)
        if name not in self._journal.records:
            self._journal.add(name, np.concatenate(self._losses_and_hits(bits)))
        losses, hits = self._journal.records[name].reshape(2, -1)
        network = self.case.network
        return Measured(artifact_bytes(network, variants_of(bits)), bits_per_weight(network, bits), losses, hits)

    def _losses_and_hits(self, bits: Assignment) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        case = self.case
        carried = realise(case.network, case.weights, case.calibration, variants_of(bits))
        outputs = simulated(self._simulator, self.test, case.batch, carried.layers, carried.ranges)
        losses = divergence(log_probabilities(self.reference), log_probabilities(outputs))
        return losses, (outputs.argmax(1) == self.labels).astype(np.float32)
