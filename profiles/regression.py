"""Regression of logarithms of times: a sum of amounts of work, and a Gaussian process for what it leaves over.

Gaussian processes and their closed-form leave-one-out predictions: Rasmussen and Williams, Gaussian Processes for Machine
Learning, 2006, sections 2.2 and 5.4.2.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LENGTHS = (1.0, 2.0, 4.0)
AMPLITUDES = (0.003, 0.01, 0.03, 0.1)
NOISES = (0.001, 0.004, 0.016, 0.064)
"""Of the process: length in standard deviations of the coordinates, and variances, tried in every combination."""
ROUGHLY = (2.0,), (0.003, 0.03)
"""Lengths and amplitudes of what is known to vary little."""
CONSTANT, SLOPE = 0.1, 0.02
"""Variances of a constant and of a slope along each coordinate, which the process holds too."""
SMALLEST = 1e-9
"""Seconds; below, no logarithm is taken."""


@dataclass(frozen=True)
class Process:
    """A Gaussian process over coordinates [n, d] that was fitted to values [n]; the mean far away is a plane."""

    coordinates: Floats
    values: Floats
    length: float
    amplitude: float
    noise: float

    @staticmethod
    def fitted(coordinates: Floats, values: Floats, *, roughly: bool = False) -> Process:
        """The process under which every value is least surprising (in the mean logarithm of its density), given the others.
        `roughly`: of fewer processes."""
        lengths, amplitudes = ROUGHLY if roughly else (LENGTHS, AMPLITUDES)
        best, least = Process(coordinates, values, lengths[0], amplitudes[0], NOISES[-1]), np.inf
        for length, amplitude in product(lengths, amplitudes):
            silent = Process(coordinates, values, length, amplitude, 0.0)
            spectrum, basis = np.linalg.eigh(silent._covariance(silent._places, silent._places))
            squares, turned = np.square(basis), basis.T @ values
            for noise in NOISES:  # each changes the spectrum alone
                damped = 1 / (np.maximum(spectrum, 0.0) + noise)
                spread = squares @ damped
                errors = basis @ (damped * turned) / spread
                surprise = float(np.mean(np.square(errors) * spread - np.log(spread)))
                if surprise < least:
                    best, least = Process(coordinates, values, length, amplitude, noise), surprise
        return best

    def predict(self, coordinates: Floats) -> tuple[Floats, Floats]:
        """Mean and standard deviation at points [m, d]; a new measurement's noise is part of the deviation."""
        cross = self._covariance(self._scaled(coordinates), self._places)
        mean = cross @ (self._inverse @ self.values)
        own = CONSTANT + SLOPE * np.square(self._scaled(coordinates)).sum(1) + self.amplitude + self.noise
        return mean, np.sqrt(np.maximum(own - np.einsum("ij,jk,ik->i", cross, self._inverse, cross), self.noise))

    @cached_property
    def left_out(self) -> tuple[Floats, Floats]:
        """Of every value, predicted from all others: the error (predicted - found) and its standard deviation."""
        spread = np.diag(self._inverse)
        return -(self._inverse @ self.values) / spread, np.sqrt(1 / spread)

    def _scaled(self, coordinates: Floats) -> Floats:
        spread = self.coordinates.std(0)
        return np.asarray((coordinates - self.coordinates.mean(0)) / np.where(spread > 0, spread, 1.0))

    @cached_property
    def _places(self) -> Floats:
        return self._scaled(self.coordinates)

    @cached_property
    def _inverse(self) -> Floats:
        covariance = self._covariance(self._places, self._places) + self.noise * np.eye(len(self.values))
        return np.asarray(np.linalg.inv(covariance))

    def _covariance(self, a: Floats, b: Floats) -> Floats:
        """Constant, plane, and a Matern function of order 3/2 of the distance."""
        squares = np.square(a).sum(1)[:, None] + np.square(b).sum(1)[None] - 2 * a @ b.T
        distance = np.sqrt(3 * np.maximum(squares, 0.0)) / self.length
        return np.asarray(CONSTANT + SLOPE * a @ b.T + self.amplitude * (1 + distance) * np.exp(-distance))


@dataclass(frozen=True)
class Rates:
    """Seconds that one of each amount of work takes, none negative."""

    rates: Floats

    @staticmethod
    def fitted(terms: Floats, seconds: Floats) -> Rates:
        """Non-negative least squares of the relative errors, for amounts [n, t] and times [n]."""
        from scipy.optimize import nnls  # here, because it takes long to load and most plans estimate nothing

        relative = terms / seconds[:, None]
        largest = relative.max(0)
        scale = np.where(largest > 0, largest, 1.0)
        found, _ = nnls(relative / scale, np.ones(len(seconds)))
        return Rates(found / scale)

    def logarithms(self, terms: Floats) -> Floats:
        """Of the times that amounts [m, t] take."""
        return np.asarray(np.log(np.maximum(terms @ self.rates, SMALLEST)))


__all__ = ["Process", "Rates"]
