"""`--max-drop`: the limit on predicted loss that just keeps the measured drop within what was allowed."""

from __future__ import annotations

import math
from collections.abc import Callable

from bitplan.errors import InfeasibleError, UsageError
from bitplan.measured import CarriedOut
from bitplan.progress import Reporter

STEPS = 6
LEAST_LOSS = 1e-6


def loosest_within_drop(
    attempt: Callable[[float | None], CarriedOut], max_drop: float, reporter: Reporter
) -> CarriedOut:
    """Bisects the predicted loss (on a logarithmic scale) and verifies each step by measurement: the last policy whose
    measured drop was allowed. `attempt(limit)` plans under that limit and carries the plan out.

    Raises InfeasibleError where not even the smallest loss stays within the drop."""
    carried = attempt(None)
    drop = _drop(carried)
    reporter.say(f"without a limit on the loss the drop is {100 * drop:.2f} points; {100 * max_drop:.2f} are allowed")
    if drop <= max_drop:
        return carried
    low, high = math.log(LEAST_LOSS), math.log(max(carried.policy.predicted["loss"] or 1.0, 10 * LEAST_LOSS))
    best: CarriedOut | None = None
    smallest = drop
    for _ in range(STEPS):
        middle = (low + high) / 2
        try:
            carried = attempt(math.exp(middle))
        except InfeasibleError:
            low = middle
            continue
        drop = _drop(carried)
        smallest = min(smallest, drop)
        allowed = drop <= max_drop
        scale = carried.policy.settings.get("loss_scale")
        reporter.say(f"predicted loss <= {math.exp(middle):.3g} ({scale}): drop {100 * drop:.2f} points")
        if allowed:
            best, low = carried, middle
        else:
            high = middle
    if best is None:
        raise InfeasibleError(
            f"no policy was found whose measured drop is at most {100 * max_drop:.2f} points within the other limits; "
            f"the smallest drop seen was {100 * smallest:.2f}; allow more, or loosen --budget or --target-latency"
        )
    return best


def _drop(carried: CarriedOut) -> float:
    evaluation = carried.outcome.evaluation
    if evaluation is None or evaluation.drop is None:
        raise UsageError(
            "--max-drop needs a classifier, or a --metric and labels, to measure the drop with"
            "; give one of them, or limit --max-loss instead"
        )
    return evaluation.drop
