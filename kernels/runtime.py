"""The runtime as Python sees it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray

from bitplan.errors import DataError
from bitplan.kernels._runtime import active_isa, all_isas, encodings, isa_levels, kernel_version
from bitplan.kernels.compiled import _runtime
from bitplan.network import Preprocessing, Shape

RawArray = NDArray[np.uint8] | NDArray[np.float32]
Ordered = RawArray | Sequence[RawArray]
Named = Mapping[str, RawArray]
"""The array of a network's one input, or all of them in order or by name; raw, [N, C, H, W] or [N, features]."""

__all__ = ["Runtime", "active_isa", "all_isas", "encodings", "isa_levels", "kernel_version"]


class Runtime:
    """A loaded artifact. Calls from several threads at once are safe; the interpreter lock is released meanwhile.

    Arrays are uint8 or float32 on the scale that the preprocessing states; their first axis is the batch, from 1 to
    `planned_batch`. Results are float32, channels first.
    """

    def __init__(self, compiled: _runtime.Runtime) -> None:
        self._compiled = compiled

    @staticmethod
    def load(path: str | os.PathLike[str], threads: int = 1, isa: str | None = None) -> Runtime:
        """Loads an artifact. `isa` forces an ISA level (see `isa_levels()`), else BITPLAN_ISA or the best counts.
        Raises FileFormatError (damaged or foreign file), OSError, UsageError (threads, isa) and MemoryError."""
        return Runtime(_runtime.Runtime.load(os.fspath(path), _threads(threads), isa or ""))

    @staticmethod
    def from_bytes(data: bytes, threads: int = 1, isa: str | None = None) -> Runtime:
        """The same from an artifact in memory, which is copied as far as it is needed."""
        return Runtime(_runtime.Runtime.from_bytes(data, _threads(threads), isa or ""))

    @overload
    def __call__(self, inputs: Ordered) -> NDArray[np.float32]: ...

    @overload
    def __call__(self, inputs: Named) -> dict[str, NDArray[np.float32]]: ...

    def __call__(self, inputs: Ordered | Named) -> NDArray[np.float32] | dict[str, NDArray[np.float32]]:
        """Runs the network: a mapping gives a mapping by output name, anything else the array of the one output.
        Raises DataError where the arrays do not fit, or where there are several outputs and no mapping was given."""
        if not isinstance(inputs, Mapping) and len(self.outputs) > 1:
            raise DataError(
                f"the network has the outputs {list(self.outputs)}; pass a mapping by name to get all of them"
            )
        outputs = self._compiled.run(self._in_order(inputs))
        return dict(zip(self.outputs, outputs, strict=True)) if isinstance(inputs, Mapping) else outputs[0]

    def time_steps(self, inputs: Ordered | Named, runs: int) -> NDArray[np.float64]:
        """Seconds of each step in `runs` inferences: [runs, steps], in the order of `steps`."""
        return self._compiled.time_steps(self._in_order(inputs), runs)

    def time_runs(self, inputs: Ordered | Named, runs: int) -> NDArray[np.float64]:
        """Seconds of `runs` whole inferences, without the clock between steps."""
        return self._compiled.time_runs(self._in_order(inputs), runs)

    @property
    def inputs(self) -> dict[str, Shape]:
        """Name and shape (without the batch) of each input."""
        return {name: tuple(shape) for name, shape in self._compiled.inputs}

    @property
    def outputs(self) -> dict[str, Shape]:
        """Name and shape (without the batch) of each output."""
        return {name: tuple(shape) for name, shape in self._compiled.outputs}

    @property
    def steps(self) -> list[str]:
        """The steps that are timed: one per node, and `<node>:<format>` behind a node without weights for every format
        of its value but the one that it writes."""
        return self._compiled.steps

    @property
    def step_kernels(self) -> list[str]:
        """The compute kernel of each step (see bitplan/compute.py); empty where there are no weights."""
        return self._compiled.step_kernels

    @property
    def planned_batch(self) -> int:
        return self._compiled.planned_batch

    @property
    def policy_hash(self) -> bytes:
        """SHA-256 of the policy that the artifact carries out."""
        return self._compiled.policy_hash

    @property
    def preprocessing(self) -> Preprocessing:
        mean, std, resize, crop = self._compiled.preprocessing
        return Preprocessing(tuple(mean), tuple(std), resize, crop)

    @property
    def weight_bytes(self) -> int:
        """Bytes of all layers' weights as they stay in memory."""
        return self._compiled.weight_bytes

    @property
    def arena_bytes(self) -> int:
        """Bytes of the activations of one image."""
        return self._compiled.arena_bytes

    @property
    def isa(self) -> str:
        """The ISA level whose kernels run."""
        return self._compiled.isa

    @property
    def threads(self) -> int:
        return self._compiled.threads

    @threads.setter
    def threads(self, threads: int) -> None:
        self._compiled.threads = _threads(threads)

    def _in_order(self, inputs: Ordered | Named) -> list[RawArray]:
        names = list(self.inputs)
        given: list[RawArray]
        if isinstance(inputs, Mapping):
            if sorted(inputs) != sorted(names):
                raise DataError(f"arrays for {sorted(inputs)} were given; the network's inputs are {names}")
            given = [inputs[name] for name in names]
        else:
            given = [inputs] if isinstance(inputs, np.ndarray) else list(inputs)
        return [_contiguous(array) for array in given]


def _contiguous(array: object) -> RawArray:
    if not isinstance(array, np.ndarray):
        raise DataError(f"an input is a {type(array).__name__}; expected a numpy array")
    return np.ascontiguousarray(array)


def _threads(threads: int) -> int:
    return max(int(threads), 0)  # the compiled side refuses 0 with the rule
