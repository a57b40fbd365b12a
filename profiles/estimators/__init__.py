"""How the losses of choices, alone and in pairs, are found: one file for each way, all with the same kind of answer.

`--loss-profile NAME` chooses one. What they need (torch, for most) is imported when one is used.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from bitplan.errors import UsageError
from bitplan.suggest import suggestion

if TYPE_CHECKING:
    from bitplan.profiles.estimators.method import Method


@dataclass(frozen=True, slots=True)
class Estimator:
    """`module` of this package offers METHOD (see method.py). `in_metric`: its losses are in the unit of the metric as they
    are; those of others are scores until a link makes losses of them."""

    name: str
    module: str
    summary: str
    in_metric: bool = False

    def method(self) -> Method:
        """Imports what it needs."""
        found: Method = import_module(f"bitplan.profiles.estimators.{self.module}").METHOD
        return found


ESTIMATORS: dict[str, Estimator] = {
    estimator.name: estimator
    for estimator in (
        Estimator("separable", "separable", "the loss of every choice alone", in_metric=True),
        Estimator("tempered", "tempered", "the same from softened outputs"),
        Estimator("gram", "gram", "the same, and how the changes of outputs that choices cause add up"),
        Estimator("clado", "clado", "the same, and the loss of every pair of choices that can matter", in_metric=True),
        Estimator("hessian-trace", "hessian_trace", "mean curvature of each layer times its squared error"),
        Estimator("orthogonality", "orthogonality", "bits by how little layers repeat each other"),
    )
}

SEPARABLE = "separable"
DEFAULT = "tempered"
"""What the main job uses; docs/decisions/0010 says why."""


def estimator_named(name: str) -> Estimator:
    """Raises UsageError for an unknown name."""
    if name not in ESTIMATORS:
        raise UsageError(f"unknown estimator {name!r}; {suggestion(name, ESTIMATORS, 'estimators')}")
    return ESTIMATORS[name]


__all__ = ["DEFAULT", "ESTIMATORS", "SEPARABLE", "Estimator", "estimator_named"]
