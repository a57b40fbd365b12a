"""How the steps that recover accuracy are named, and what is told of each; without torch, which they need."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from bitplan.errors import UsageError
from bitplan.suggest import suggestion

EQUALISE, CORRECT, RECONSTRUCT, BLOCKS, TUNE = "equalise", "correct", "reconstruct", "blocks", "tune"
STEPS = (EQUALISE, CORRECT, RECONSTRUCT, BLOCKS, TUNE)
"""In the order in which they are carried out."""
LAYER_STEPS = (CORRECT, RECONSTRUCT)
"""Those that act on one layer at a time, so that the loss of a single choice can be measured under them."""

PRESETS = {
    "none": (),
    "fast": (CORRECT,),
    "balanced": (CORRECT, RECONSTRUCT),
    "strong": (CORRECT, RECONSTRUCT, TUNE),
}

MSE, PERCENTILE, KL, MINMAX = "mse", "percentile", "kl", "minmax"
RANGES = (MSE, PERCENTILE, KL, MINMAX)
"""How the ranges of activations are chosen."""
DEFAULT_RANGES = MSE
DEFAULT_TUNE_EPOCHS = 8


@dataclass(frozen=True, slots=True)
class Gain:
    """The loss on held-back calibration images after a step: KL to full precision, both softened by a temperature of 3
    (times its square), or the relative squared error where the outputs are no scores. A step is kept if that fell."""

    step: str
    held_back_loss: float
    kept: bool


def steps_named(names: Iterable[str], field: str = "recovery") -> tuple[str, ...]:
    """The steps that names of steps and presets stand for, in their order. Raises UsageError for an unknown name."""
    wanted: set[str] = set()
    for name in names:
        if name not in STEPS and name not in PRESETS:
            known = [*STEPS, *PRESETS]
            raise UsageError(f"{field} {name!r} is no step; {suggestion(name, known, 'steps and presets')}")
        wanted.update(PRESETS.get(name, (name,)))
    return tuple(step for step in STEPS if step in wanted)


def layer_steps(steps: Iterable[str]) -> tuple[str, ...]:
    """Those of `steps` that act on one layer at a time, in their order."""
    wanted = set(steps)
    return tuple(step for step in LAYER_STEPS if step in wanted)
