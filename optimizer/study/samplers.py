"""Samplers and pruners by name. A sampler's random numbers depend on the seed and the number of the trial alone, so that a
study that was interrupted goes on as if it had not been."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import prod
from typing import Any

import numpy as np
import optuna
from optuna.samplers import BaseSampler

from bitplan.errors import UsageError
from bitplan.optimizer.study.knobs import Choices, Knob
from bitplan.suggest import suggestion
from bitplan.user_code import FUNCTION_SPEC, import_function

Make = Callable[[int], Any]
"""A sampler from a seed."""

POPULATION = 10
"""Of genetic samplers; with Optuna's 50, studies of 40 trials would be random throughout."""

SAMPLERS: Mapping[str, Callable[..., Any]] = {
    "tpe": optuna.samplers.TPESampler,
    "nsga2": partial(optuna.samplers.NSGAIISampler, population_size=POPULATION),
    "nsga3": partial(optuna.samplers.NSGAIIISampler, population_size=POPULATION),
    "random": optuna.samplers.RandomSampler,
    "gp": optuna.samplers.GPSampler,
    "qmc": optuna.samplers.QMCSampler,
    "grid": optuna.samplers.GridSampler,
}
"""Optuna has more; those that keep pickles in the storage are not among them. `pkg.mod:function` names any."""

PRUNERS: Mapping[str, Callable[[], Any]] = {
    "none": optuna.pruners.NopPruner,
    "median": optuna.pruners.MedianPruner,
    "percentile": lambda: optuna.pruners.PercentilePruner(75.0),
    "halving": optuna.pruners.SuccessiveHalvingPruner,
    "hyperband": optuna.pruners.HyperbandPruner,
}

GRID = "grid"


class SeededByTrial(BaseSampler):  # type: ignore[misc]
    """Makes a new sampler for every trial, from the seed and the trial's number; what samplers know of earlier trials they
    take from the storage."""

    def __init__(self, make: Make, seed: int) -> None:
        self.make, self.seed = make, seed
        self.inner = make(seed)

    def before_trial(self, study: Any, trial: Any) -> None:
        self.inner = self.make(int(np.random.SeedSequence([self.seed, trial.number]).generate_state(1)[0]))
        self.inner.before_trial(study, trial)

    def infer_relative_search_space(self, study: Any, trial: Any) -> Any:
        return self.inner.infer_relative_search_space(study, trial)

    def sample_relative(self, study: Any, trial: Any, search_space: Any) -> Any:
        return self.inner.sample_relative(study, trial, search_space)

    def sample_independent(self, study: Any, trial: Any, param_name: str, param_distribution: Any) -> Any:
        return self.inner.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(self, study: Any, trial: Any, state: Any, values: Sequence[float] | None) -> None:
        self.inner.after_trial(study, trial, state, values)


def check_sampler(name: str) -> None:
    """What can be said of a name before knobs are known. Raises UsageError for one that is neither in SAMPLERS nor a function
    that can be imported."""
    if FUNCTION_SPEC.fullmatch(name):
        import_function(name, "sampler")
    elif name not in SAMPLERS:
        raise UsageError(
            f"unknown sampler {name!r}; {suggestion(name, SAMPLERS, 'samplers')}, or name pkg.mod:function that makes one "
            "from a seed"
        )


def sampler_named(name: str, knobs: Sequence[Knob], seed: int) -> SeededByTrial:
    """By a name of SAMPLERS, or `pkg.mod:function` that makes one from a seed. Raises UsageError for an unknown name and
    for a grid over ranges."""
    check_sampler(name)
    if FUNCTION_SPEC.fullmatch(name):
        own = import_function(name, "sampler")
        return SeededByTrial(lambda number: _made(name, own, number), seed)
    if name == GRID:
        space = {knob.name: list(_choices(knob).values) for knob in knobs}
        return SeededByTrial(lambda _: optuna.samplers.GridSampler(space, seed=seed), seed)  # one order for all trials
    return SeededByTrial(lambda number: SAMPLERS[name](seed=number), seed)


def points(name: str, knobs: Sequence[Knob]) -> int | None:
    """How many trials the sampler can propose behind the planner's own; None where there is no end to them."""
    return 1 + prod(len(_choices(knob).values) for knob in knobs) if name == GRID else None


def pruner_named(name: str, objectives: Sequence[str]) -> Any:
    """By a name of PRUNERS. Raises UsageError for an unknown name, and for pruning by several objectives."""
    if name not in PRUNERS:
        raise UsageError(f"unknown pruner {name!r}; {suggestion(name, PRUNERS, 'pruners')}")
    if name != "none" and len(objectives) > 1:
        raise UsageError(
            f"the pruner {name} stops trials by one objective, and there are {len(objectives)}; leave --pruner out"
        )
    return PRUNERS[name]()


def _choices(knob: Knob) -> Choices:
    if not isinstance(knob.domain, Choices):
        raise UsageError(
            f"the sampler {GRID} needs values to go through, but the knob {knob.name} is a range; list its values, or choose another sampler"
        )
    return knob.domain


def _made(name: str, function: Callable[..., Any], seed: int) -> Any:
    try:
        sampler = function(seed)
    except Exception as error:
        raise UsageError(
            f"sampler {name!r}, called with a seed, raised {type(error).__name__}: {error}"
            "; mend it, or name one that bitplan knows"
        ) from error
    if not isinstance(sampler, BaseSampler):
        raise UsageError(f"sampler {name!r} returned {type(sampler).__name__}; it must return an optuna sampler")
    return sampler
