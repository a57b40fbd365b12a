"""Our own entries: one program for each way to estimate losses."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from networks import Case

from bitplan.optimizer.plan import plan
from bitplan.policies.menu import Menu, menu_for
from bitplan.policies.policy import Certificate
from bitplan.profiles.estimators import DEFAULT, SEPARABLE
from bitplan.profiles.loss import LossProfile
from bitplan.profiles.measure_loss import measure
from bitplan.targets import Targets

from .assignment import ENCODINGS, bits_of

TIME_LIMIT = 10.0
"""Seconds that a program may take."""


def menu_of(case: Case) -> Menu:
    return menu_for(case.network, encodings=ENCODINGS)


def measured(estimator: str, case: Case, folder: Path) -> LossProfile:
    """Losses by an estimator, after recovery, on the images that all peers get."""
    path = folder / f"{case.name}.{estimator}.loss.arrow"
    profile = measure(
        case.network,
        case.weights,
        case.loss_images,
        menu_of(case),
        estimator=estimator,
        checkpoint=path.with_suffix(".journal"),
        profile=LossProfile.load(path) if path.exists() else None,
    )
    profile.save(path)
    return profile


OURS: tuple[tuple[str, Callable[[Case, Path], LossProfile]], ...] = tuple(
    (name, partial(measured, name)) for name in (DEFAULT, SEPARABLE)
)
"""By name, what measures the loss profile of a case; a folder is for what may be reused. The first is compared first."""


def planned(case: Case, profile: LossProfile, budget: int) -> tuple[dict[str, int], Certificate]:
    """The bits of every layer within a budget in bytes of the artifact, and the solver's certificate. Raises
    InfeasibleError where nothing fits."""
    policy = plan(case.network, profile, None, Targets(bytes=budget), menu_of(case), time_limit=TIME_LIMIT)
    return bits_of(policy.variants), policy.certificate
