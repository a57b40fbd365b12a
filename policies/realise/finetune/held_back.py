"""How good a realisation is on images that are not trained on: executed exactly, as the runtime does."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bitplan.errors import DataError
from bitplan.network import Network
from bitplan.policies.realise.finetune.checkpoint import Epoch
from bitplan.policies.realise.finetune.loss import Loss, is_classifier
from bitplan.policies.realise.front import default_batch, slices
from bitplan.policies.realise.pipeline import Realisation
from bitplan.simulate import Simulator

LEAST = 10
"""Images of which a fifth can be held back."""
MOST = 1000


class HeldBack:
    """Raw images [N, ...] with labels where known, and the full-precision outputs on them."""

    def __init__(
        self, network: Network, simulator: Simulator, images: NDArray[np.generic], labels: Tensor | None, loss: Loss
    ) -> None:
        self.network, self.simulator, self.images, self.labels, self.loss = network, simulator, images, labels, loss
        self.full = self._outputs(None)

    def measure(self, realisation: Realisation, trained: float | None = None) -> Epoch:
        """Loss, agreement and accuracy, beside the training loss."""
        outputs = self._outputs(realisation)
        agreement = accuracy = None
        with torch.no_grad():
            loss = float(self.loss(outputs, self.full, self.labels))
        if is_classifier(self.network):
            name = self.network.outputs[0]
            found = outputs[name].argmax(-1)
            agreement = float((found == self.full[name].argmax(-1)).float().mean())
            accuracy = None if self.labels is None else float((found == self.labels).float().mean())
        return Epoch(trained, loss, agreement, accuracy)

    def _outputs(self, realisation: Realisation | None) -> Mapping[str, Tensor]:
        layers, ranges = (realisation.layers, realisation.ranges) if realisation else (None, None)
        parts = [
            self.simulator.outputs(self.images[part], layers, ranges)
            for part in slices(0, len(self.images), default_batch(self.network))
        ]
        return {name: torch.cat([part[name] for part in parts]) for name in self.network.outputs}


def divide(count: int, held_back: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Numbers of the images to train on and of those held back. Raises DataError where there are too few."""
    size = held_back or min(MOST, count // 5)
    if count < LEAST or size >= count:
        raise DataError(
            f"fine-tuning needs {LEAST} training images at least, and more than are held back ({size}), not {count}; give "
            "more with --train-data or --calibration-size"
        )
    order = np.random.default_rng(seed).permutation(count)
    return np.sort(order[size:]), np.sort(order[:size])
