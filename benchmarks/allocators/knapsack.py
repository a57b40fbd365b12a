"""One choice per layer, least cost in all, within a limit on the sum of sizes: solved to optimality by HiGHS."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import Bounds, LinearConstraint, milp

LARGEST = 1e5
"""What the largest cost becomes: the solver stops at an absolute gap of 1e-6."""


def cheapest(costs: ArrayLike, sizes: ArrayLike, limit: float) -> list[int]:
    """The choice of every layer from costs and sizes [layers, choices]. Raises ValueError where nothing fits."""
    cost, size = np.asarray(costs, np.float64), np.asarray(sizes, np.float64)
    layers, choices = cost.shape
    one_each = np.kron(np.eye(layers), np.ones(choices))
    cost = cost - cost.min(1, keepdims=True)
    scale = LARGEST / max(float(cost.max()), 1e-30)
    found = milp(
        scale * cost.ravel(),
        integrality=np.ones(cost.size),
        bounds=Bounds(0, 1),
        constraints=[LinearConstraint(one_each, 1, 1), LinearConstraint(size.reshape(1, -1), -np.inf, limit)],
        options={"mip_rel_gap": 0.0},
    )
    if found.x is None:
        raise ValueError(f"no choice fits into {limit:g}; the smallest takes {size.min(1).sum():g}")
    return [int(choice) for choice in found.x.reshape(cost.shape).argmax(1)]
