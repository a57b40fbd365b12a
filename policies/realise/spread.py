"""Where the numbers of one value lie on the calibration images."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import gcd

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bitplan.errors import DataError

Floats = NDArray[np.float64]

BINS = 4096
SAMPLES = 1 << 23
"""Numbers of each value that go into its histogram; smallest and largest are taken over all."""


@dataclass
class Spread:
    """Where the numbers of one value lie: bounds first (`extend`), then a histogram between them (`fill`)."""

    low: float = 0.0
    high: float = 0.0
    total: int = 0
    counts: Floats = field(default_factory=lambda: np.zeros(BINS))
    """Of the numbers that are not exactly zero."""
    zeros: float = 0.0
    """Numbers that are exactly zero: they cost nothing where zero is exact."""

    def extend(self, value: Tensor, name: str) -> None:
        low, high = (float(x) for x in torch.aminmax(value))
        if not (np.isfinite(low) and np.isfinite(high)):
            raise DataError(
                f"value {name!r} is not finite on the calibration images ({low} to {high}); check weights and images"
            )
        self.low, self.high = min(self.low, low), max(self.high, high)
        self.total += value.numel()

    def fill(self, value: Tensor) -> None:
        sample = _sample(value, max(1, self.total // SAMPLES))
        if self.high > self.low:
            nonzero = sample[sample != 0]
            self.counts += torch.histc(nonzero, BINS, self.low, self.high).double().numpy()
            self.zeros += len(sample) - len(nonzero)

    @property
    def centres(self) -> Floats:
        return self.low + (np.arange(BINS) + 0.5) * (self.high - self.low) / BINS


def _sample(value: Tensor, step: int) -> Tensor:
    """About every step-th number in the order of memory, with a step that visits all channels in turn."""
    flat = value.permute(0, 2, 3, 1).reshape(-1) if value.ndim == 4 else value.reshape(-1)
    channels = value.shape[1] if value.ndim == 4 else value.shape[-1]
    while gcd(step, channels) > 1:
        step += 1
    return flat[::step]
