"""Studies over what a plan depends on: Optuna proposes settings, an injected `evaluate` carries them out.

Needs optuna (extra `study`), and neither torch nor the compiled module.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna

from bitplan.errors import UsageError
from bitplan.optimizer.study.course import PLANNER, Course, Evaluate, Evaluated, Watch
from bitplan.optimizer.study.knobs import Choices, Knob, Range, Settings, Value, parse_domain
from bitplan.optimizer.study.samplers import PRUNERS, SAMPLERS, points, pruner_named, sampler_named
from bitplan.optimizer.study.storage import Place, loaded_study, open_storage, quiet
from bitplan.optimizer.study.workers import Workers

MADE_OF = "bitplan"
"""User attribute of the study: what its trials depend on."""


@dataclass(frozen=True)
class Plan:
    """What a study is made of. `depends`: plain data that trials depend on besides knobs, objectives, sampler, pruner and
    seed; a study is gone on with only where all are the same."""

    name: str
    knobs: Sequence[Knob]
    objectives: Sequence[str]
    sampler: str = "tpe"
    pruner: str = "none"
    seed: int = 0
    depends: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "objectives": list(self.objectives),
            "knobs": {knob.name: {"values": knob.domain.to_json(), "planner": knob.planner} for knob in self.knobs},
            "sampler": self.sampler,
            "pruner": self.pruner,
            "seed": self.seed,
            **(self.depends or {}),
        }

    @property
    def points(self) -> int | None:
        """How many trials there can be; None where there is no end to them."""
        return points(self.sampler, self.knobs)


def differences(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """The names of what differs, down to those inside `settings`, `targets` and the like."""
    names = []
    for name in {**wanted, **found}:
        a, b = wanted.get(name), found.get(name)
        if isinstance(a, Mapping) and isinstance(b, Mapping) and name != "knobs":
            names += [f"{name}.{inner}" for inner in differences(a, b)]
        elif a != b:
            names.append(name)
    return names


def begun(plan: Plan, place: Place, workers: Workers) -> Any:
    """The Optuna study, made or found, with the planner's own solution as its first trial. Raises UsageError where a study
    of this name was made of something else, and for unknown samplers and pruners."""
    directions = ["minimize"] * len(plan.objectives)
    with quiet(), workers.turn():
        sampler = sampler_named(plan.sampler, plan.knobs, plan.seed)
        pruner = pruner_named(plan.pruner, plan.objectives)
        study = optuna.create_study(
            storage=place.storage,
            study_name=plan.name,
            sampler=sampler,
            pruner=pruner,
            directions=directions,
            load_if_exists=True,
        )
        found, wanted = study.user_attrs.get(MADE_OF), plan.to_json()
        if found is None:
            if study.get_trials(deepcopy=False):
                raise UsageError(
                    f"{place.shown} holds a study {plan.name!r} that is not bitplan's; name another with --name"
                )
            study.set_metric_names(list(plan.objectives))
            study.set_user_attr(MADE_OF, wanted)
        elif different := differences(wanted, found):
            raise UsageError(
                f"the study {plan.name!r} of {place.shown} was made with other {', '.join(different)}; "
                "give the same to go on with it, or another --name for a new one"
            )
        if not study.get_trials(deepcopy=False):
            study.enqueue_trial({knob.name: knob.planner for knob in plan.knobs}, user_attrs={PLANNER: True})
    return study


__all__ = [
    "MADE_OF",
    "PLANNER",
    "PRUNERS",
    "SAMPLERS",
    "Choices",
    "Course",
    "Evaluate",
    "Evaluated",
    "Knob",
    "Place",
    "Plan",
    "Range",
    "Settings",
    "Value",
    "Watch",
    "Workers",
    "begun",
    "loaded_study",
    "open_storage",
    "parse_domain",
]
