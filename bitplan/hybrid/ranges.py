"""The ranges of the leaves' inputs, from a full-precision run on calibration images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from numpy.typing import NDArray
from torch import Tensor

from bitplan.hybrid.leaves import Leaf, watched
from bitplan.hybrid.runner import Runner
from bitplan.hybrid.twin import Held
from bitplan.kernels.torch_modules import operation_of
from bitplan.network import Linear
from bitplan.policies.realise.range_methods import best_range
from bitplan.policies.realise.spread import Spread
from bitplan.recovery_names import DEFAULT_RANGES


def calibrate_inputs(
    runner: Runner,
    leaves: Sequence[Leaf],
    images: NDArray[Any],
    formats: Sequence[str],
    method: str = DEFAULT_RANGES,
) -> dict[str, Held]:
    """By leaf, the range of its input in each of `formats` (of codes) over all its calls, found by `method`
    (policies/realise/range_methods.py). Raises DataError, naming the leaf, where an input is not finite."""
    if not formats:
        return {leaf.name: {} for leaf in leaves}
    spreads = {leaf.name: Spread() for leaf in leaves}

    def show(take: Callable[[Spread, Tensor, str], None]) -> None:
        seen = {}
        for leaf in leaves:
            rows = isinstance(operation_of(leaf.module), Linear)
            seen[leaf.module] = _seen(take, spreads[leaf.name], leaf.name, rows)
        with watched(seen):
            runner.run(images)

    show(lambda spread, x, name: spread.extend(x, f"{name}.input"))
    show(lambda spread, x, name: spread.fill(x))
    return {name: {form: best_range(spread, form, method) for form in formats} for name, spread in spreads.items()}


def _seen(
    take: Callable[[Spread, Tensor, str], None], spread: Spread, name: str, rows: bool
) -> Callable[[Tensor], None]:
    return lambda x: take(spread, x.reshape(-1, x.shape[-1]) if rows else x, name)
