"""What a solver answers."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from bitplan.html_table import html_facts
from bitplan.optimizer.problem import Choices

ROUNDING = 1e-9
"""By what share of the objective a floating-point bound may end up above it."""


class Status(StrEnum):
    """optimal: the bound equals the objective; feasible: a solution, and a bound that may be lower (the solver was
    stopped); infeasible: proven that no choice meets the limits; unknown: neither a solution nor a proof."""

    OPTIMAL = "optimal"
    FEASIBLE = "feasible"
    INFEASIBLE = "infeasible"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Solution:
    """`objective` and `bound` are integers of the problem (`Problem.value` turns them into the objective's unit);
    no choice that meets the limits is below `bound`. `choices` is None unless the status is optimal or feasible."""

    status: Status
    choices: Choices | None = None
    objective: int | None = None
    bound: int | None = None
    seconds: float = 0.0
    solver: str = ""

    @property
    def gap(self) -> float | None:
        """(objective - bound) / |objective|, or None where one of them is missing."""
        if self.objective is None or self.bound is None:
            return None
        difference = self.objective - self.bound
        return difference / max(abs(self.objective), 1) if difference else 0.0

    def _repr_html_(self) -> str:
        return html_facts(
            {
                "status": str(self.status),
                "objective": self.objective,
                "bound": self.bound,
                "gap": self.gap,
                "seconds": self.seconds,
                "solver": self.solver,
                "choices": None if self.choices is None else " ".join(map(str, self.choices)),
            }
        )


def from_parts(
    choices: Choices | None, objective: int | None, bound: int | None, seconds: float, solver: str
) -> Solution:
    """A solution whose status follows from its parts: optimal only where the bound has met the objective. A bound that
    lies above it by more than rounding is wrong; it is kept as it is, so that `check` refuses the solution."""
    if choices is None or objective is None:
        return Solution(Status.UNKNOWN, None, None, bound, seconds, solver)
    if bound is not None and objective < bound <= objective + ROUNDING * abs(objective):
        bound = objective
    status = Status.OPTIMAL if bound == objective else Status.FEASIBLE
    return Solution(status, choices, objective, bound, seconds, solver)
