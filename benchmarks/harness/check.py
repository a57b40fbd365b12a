"""How far a result may be from its reference."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .workloads import ConvChain, WholeNetwork, Workload


def relative_error(found: NDArray[np.generic], wanted: NDArray[np.generic]) -> float:
    """max|found - wanted| / max|wanted|; infinite where the shapes differ."""
    a, b = np.asarray(found, np.float64), np.asarray(wanted, np.float64)
    if a.shape != b.shape:
        return float("inf")
    return float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-30))


def tolerance(workload: Workload, variant: str) -> float:
    """What `relative_error` of a peer may be.

    Layers in 8 bits: sums are exact, but the rounding of each layer may fall either way: a step of 256 per layer. Whole networks are compared with themselves in float32, and 8 bits lose what they lose: the bound only
    tells that it is the same network. 4-bit weights are multiplied by activations rounded to 8 bits in blocks.
    """
    if variant == "float32":
        return 1e-3 if isinstance(workload, WholeNetwork) else 1e-4
    if isinstance(workload, WholeNetwork):
        return 0.5
    layers = workload.depth if isinstance(workload, ConvChain) else 1
    return {"int8:matmulinteger": 0.0, "int4": 0.02}.get(variant, layers / 255)
