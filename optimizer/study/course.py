"""The course of a study: trials one after the other, repeated where their worker was lost, until there are enough.

A trial whose worker is gone is put back with its number and its parameters, and since a sampler's random numbers depend on
the number of the trial, a study of one worker that was killed and called again is the one that was not. In databases,
Optuna's heartbeats find workers that were lost on other machines; their trials are marked as failed and repeated as new ones.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

import optuna
from optuna.trial import TrialState

from bitplan.errors import BitplanError, InfeasibleError
from bitplan.optimizer.study.knobs import Knob, Settings, suggested
from bitplan.optimizer.study.storage import GRACE, quiet
from bitplan.optimizer.study.workers import Turn, Workers

WORKER, PLANNER, ERROR, INFEASIBLE = "worker", "planner", "error", "infeasible"
"""User attributes of trials: who runs it, whether it is the planner's own solution, why it failed, and why there is no policy."""
FINISHED, RUNNING, WAITING = "finished", "running", "waiting"
POLL = 0.5
"""Seconds between two looks at the trials of others."""


@dataclass(frozen=True)
class Evaluated:
    """What a trial came to: values of all objectives that are known by name, constraints (kept where at most 0), and
    attributes that JSON can hold."""

    values: Mapping[str, float]
    constraints: Mapping[str, float] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)


class Watch:
    """What a trial tells while it runs. `planner`: it is the planner's own solution."""

    def __init__(self, trial: Any, prunable: bool, doing: Callable[[int, str], None]) -> None:
        self.number: int = trial.number
        self.planner = bool(trial.user_attrs.get(PLANNER))
        self._trial, self._prunable, self._doing = trial, prunable, doing

    def doing(self, what: str) -> None:
        """For people."""
        self._doing(self.number, what)

    def loss(self, step: int, loss: float, last: bool = False) -> None:
        """A loss that is comparable between trials at the same step. Unless it is the trial's last one it may end the trial,
        by an exception that is not to be caught; but never the planner's own solution, nor with several objectives."""
        if not self._prunable:
            return
        self._trial.report(loss, step)
        if not (last or self.planner) and self._trial.should_prune():
            raise optuna.TrialPruned(f"loss {loss:.4g} at step {step}")


class Evaluate(Protocol):
    """Carries out a trial. Raises InfeasibleError where no policy meets the limits, another BitplanError where it fails."""

    def __call__(self, settings: Settings, watch: Watch) -> Evaluated: ...


class Left(BaseException):
    """What a trial was left with, on its way through Optuna, which would call the trial failed."""

    def __init__(self, reason: BaseException) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass
class Course:
    """One worker's part in a study. `together`: all workers share the folder of `workers`, as those of one storage file do;
    `told`: called with every trial that this worker has finished; `doing`: with a trial's number and what it is doing;
    `carry_on`: asked before every trial."""

    study: Any
    storage: Any
    knobs: Sequence[Knob]
    objectives: Sequence[str]
    evaluate: Evaluate
    workers: Workers
    together: bool = True
    told: Callable[[Any], None] = lambda trial: None
    doing: Callable[[int, str], None] = lambda number, what: None
    carry_on: Callable[[], bool] = lambda: True
    _number: int = -1

    def run(self, trials: int, seconds: float = float("inf")) -> bool:
        """Until the study has so many finished trials, those of others included; False where `seconds` ran out before. A
        trial that fails is marked so, except the planner's own solution: what that fails with is raised."""
        begin = time.monotonic()
        with quiet():
            while True:
                with self.workers.turn() as turn:
                    self._put_back()
                    states = [_state(trial) for trial in self.study.get_trials(deepcopy=False)]
                    finished = states.count(FINISHED)
                    if finished >= trials:
                        return True
                    if time.monotonic() - begin >= seconds or not self.carry_on():
                        return False
                    if finished + states.count(RUNNING) < trials:
                        self._one(turn)
                        continue
                time.sleep(POLL)
                optuna.storages.fail_stale_trials(self.study)

    def _one(self, turn: Turn) -> None:
        try:
            self.study.optimize(
                lambda trial: self._carried_out(trial, turn),
                n_trials=1,
                catch=(BitplanError,),
                callbacks=[lambda _, trial: self.told(trial)],
            )
        except Left as left:
            raise left.reason from None
        except (optuna.exceptions.UpdateFinishedTrialError, ValueError):
            # whoever took this worker for lost has repeated the trial, and told the same
            if not self.storage.get_trial(self._id(self._number)).state.is_finished():
                raise

    def _carried_out(self, trial: Any, turn: Turn) -> list[float]:
        self._number, prunable = trial.number, len(self.objectives) == 1
        watch = Watch(trial, prunable, self.doing)
        try:
            trial.set_user_attr(WORKER, self.workers.name)
            settings = suggested(self.knobs, trial)
            turn.end()
            found = self.evaluate(settings, watch)
        except (optuna.TrialPruned, optuna.exceptions.UpdateFinishedTrialError):
            raise
        except BaseException as error:
            if watch.planner or not isinstance(error, BitplanError):
                self._wait(trial.number)
                raise Left(error) from error
            if not isinstance(error, InfeasibleError):
                trial.set_user_attr(ERROR, str(error))
                raise
            trial.set_user_attr(INFEASIBLE, str(error))
            _constrain(trial, _excess(error))
            raise optuna.TrialPruned(str(error)) from None
        for name, value in found.attributes.items():
            trial.set_user_attr(name, value)
        _constrain(trial, found.constraints)
        return [found.values[name] for name in self.objectives]

    def _put_back(self) -> None:
        """Has trials that lost their worker wait to be run again."""
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            worker = trial.user_attrs.get(WORKER)
            if self.workers.lost(worker) if worker else self._unmarked(trial):
                self._wait(trial.number)

    def _unmarked(self, trial: Any) -> bool:
        """Whether a trial that names no worker has lost it: as it is our turn, none in our folder is about to name himself;
        one elsewhere has some time to do so."""
        begun = trial.datetime_start
        return self.together or begun is None or (datetime.now() - begun).total_seconds() > GRACE

    def _wait(self, number: int) -> None:
        identity = self._id(number)
        if hasattr(self.storage, "record_heartbeat"):
            self.storage.record_heartbeat(identity)  # the old one would have it marked as failed once it runs again
        self.storage.set_trial_state_values(identity, TrialState.WAITING)

    def _id(self, number: int) -> int:
        study = self.storage.get_study_id_from_name(self.study.study_name)
        found: int = self.storage.get_trial_id_from_study_id_trial_number(study, number)
        return found


def _constrain(trial: Any, constraints: Mapping[str, float]) -> None:
    for name, value in constraints.items():
        if name not in trial.constraints:  # a trial that is repeated may have it already
            trial.set_constraint(name, value)


def _state(trial: Any) -> str:
    if trial.state in (TrialState.COMPLETE, TrialState.PRUNED):
        return FINISHED
    if trial.state == TrialState.RUNNING:
        return RUNNING
    # one that failed because its worker was lost is repeated as another one, one with an error is not
    return FINISHED if trial.state == TrialState.FAIL and ERROR in trial.user_attrs else WAITING


def _excess(error: InfeasibleError) -> dict[str, float]:
    """By how much each limit that conflicts is out of reach, as a share of it; 1 where that is not known."""
    details = error.details or {}
    found = {}
    for name in details.get("conflict", ()):
        limit = details.get("limits", {}).get(name, {})
        asked, smallest = limit.get("asked"), limit.get("smallest")
        share = smallest / asked - 1 if asked and smallest else 1.0
        found[name] = share if share > 0 else 1.0
    return found or {"limits": 1.0}
