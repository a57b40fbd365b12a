"""What a solver is: a small object with capability flags and one method."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from bitplan.optimizer.problem import Choices, Problem
from bitplan.optimizer.solution import Solution


class Solver(ABC):
    """Instances are stateless. With the same problem, seed and starts, and time to finish, the answer is the same."""

    name: ClassVar[str]
    proves: ClassVar[bool]
    """Gives proven bounds and can prove infeasibility; others only find solutions."""
    uses_starts: ClassVar[bool]
    """Makes use of the solutions that it is given."""

    def fits(self, problem: Problem) -> bool:
        """Whether the problem is of a size that the solver is meant for."""
        return True

    @abstractmethod
    def solve(self, problem: Problem, *, time_limit: float, seed: int = 0, starts: Sequence[Choices] = ()) -> Solution:
        """Solves within `time_limit` seconds; `starts` are feasible choices, the best one first."""
