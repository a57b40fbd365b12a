"""Runs the user's module on raw images, some of its layers swapped for others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bitplan.errors import BitplanError, DataError
from bitplan.hybrid.outputs import Arrays, arrays_of, joined
from bitplan.kernels.torch_modules import swap
from bitplan.network import Network, Preprocessing
from bitplan.simulate import Simulator

Report = Callable[[int, int, str], None]
SAME = 1e-4
"""Relative to the largest magnitude of an output: what different batches may differ by in rounding."""


@dataclass(frozen=True)
class Runner:
    """`batch`: images of one call of the module."""

    module: nn.Module
    preprocessing: Preprocessing
    batch: int

    def prepared(self, images: NDArray[Any]) -> Tensor:
        """(x - mean) / std, float32 [N, C, H, W]. Raises DataError where the channels do not match."""
        return Simulator(Network((), (), self.preprocessing), {}).preprocess(images)

    def batches(self, images: NDArray[Any]) -> Iterator[Tensor]:
        for start in range(0, len(images), self.batch):
            yield self.prepared(images[start : start + self.batch])

    @torch.inference_mode()
    def __call__(self, x: Tensor) -> Any:
        """The module's value. Raises DataError, with its own error as the cause, where it fails."""
        try:
            return self.module(x)
        except (BitplanError, Stop):
            raise
        except Exception as error:
            raise DataError(
                f"the model failed on images of shape {tuple(x.shape)}: {type(error).__name__}: {error}"
                "; check the shape and the channels of --data"
            ) from error

    def run(self, images: NDArray[Any]) -> None:
        """All images, for what hooks see."""
        for x in self.batches(images):
            self(x)

    def outputs(self, images: NDArray[Any], report: Report | None = None) -> Arrays:
        """All outputs by name, [N, ...]. Raises DataError where they cannot be compared from image to image."""
        parts, done = [], 0
        for x in self.batches(images):
            parts.append(arrays_of(self(x), len(x)))
            done += len(x)
            if report:
                report(done, len(images), "")
        return joined(parts)

    @contextmanager
    def swapped(self, modules: Mapping[nn.Module, nn.Module]) -> Iterator[None]:
        """The module with others in the place of some below it."""
        swap(self.module, modules)
        try:
            yield
        finally:
            swap(self.module, {new: old for old, new in modules.items()})


class Stop(Exception):
    """Ends a run of which no more is needed."""


def with_largest_batch(runner: Runner, images: NDArray[Any], batch: int) -> Runner:
    """The runner with calls of up to `batch` images, where that makes no difference to these images' outputs: a module
    with control flow may treat the images of a call alike."""
    alone = runner.outputs(images)  # says what cannot be compared, if anything
    larger = Runner(runner.module, runner.preprocessing, max(batch, runner.batch))
    try:
        together = larger.outputs(images)
    except DataError:
        return runner
    same = alone.keys() == together.keys() and all(
        alone[name].shape == together[name].shape
        and np.max(np.abs(alone[name] - together[name]), initial=0) <= SAME * np.max(np.abs(alone[name]), initial=0)
        for name in alone
    )
    return larger if same else runner
