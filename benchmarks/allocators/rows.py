"""One row of the results: a peer's assignment at a budget and ours within the same bytes, image by image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .assignment import Assignment
from .evaluate import Measured


def paired(ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> tuple[float, float]:
    """Mean of theirs - ours over images, and its standard error (0 for equal assignments)."""
    difference = theirs.astype(np.float64) - ours
    return float(difference.mean()), float(difference.std(ddof=1) / np.sqrt(len(difference)))


def row(
    network: str,
    budget: float,
    peer: str,
    theirs: Measured,
    their_bits: Assignment,
    ours: Mapping[str, tuple[Measured, Assignment, float | None]],
) -> dict[str, Any]:
    """`ours`: by entry, what was measured, the bits and the program's gap."""
    found: dict[str, Any] = {
        "network": network,
        "budget_bits_per_weight": budget,
        "peer": peer,
        **_stated(theirs, their_bits),
        "ours": {},
    }
    for name, (measured, bits, gap) in ours.items():
        gain, error = paired(measured.losses, theirs.losses)
        more, more_error = paired(theirs.hits, measured.hits)
        found["ours"][name] = {
            **_stated(measured, bits),
            "gap": gap,
            "kl_gain": gain,
            "kl_gain_standard_error": error,
            "accuracy_gain": more,
            "accuracy_gain_standard_error": more_error,
        }
    return found


def _stated(measured: Measured, bits: Assignment) -> dict[str, Any]:
    return {
        "bytes": measured.bytes,
        "bits_per_weight": measured.bits_per_weight,
        "kl": measured.loss,
        "accuracy": measured.accuracy,
        "bits": dict(bits),
    }


@dataclass(frozen=True)
class Score:
    """How often an entry of ours has a lower KL than a peer by more than one paired standard error, one within it, and
    a higher one; equal assignments are within. `ratio`: geometric mean of ours / theirs."""

    network: str
    peer: str
    entry: str
    better: int
    within: int
    worse: int
    ratio: float

    @property
    def budgets(self) -> int:
        return self.better + self.within + self.worse


def distinct(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The rows without those in which a peer repeats its assignment of another budget."""
    seen: set[tuple[object, ...]] = set()
    kept = []
    for one in rows:
        key = (one["network"], one["peer"], tuple(sorted(one["bits"].items())))
        if key not in seen:
            seen.add(key)
            kept.append(one)
    return kept


def scores(rows: Sequence[Mapping[str, Any]]) -> list[Score]:
    """Over distinct assignments, for each network, peer and entry in their order."""
    grouped: dict[tuple[str, str, str], list[tuple[Mapping[str, Any], float]]] = {}
    for one in distinct(rows):
        for entry, ours in one["ours"].items():
            ratio = max(ours["kl"], 1e-12) / max(one["kl"], 1e-12)
            grouped.setdefault((one["network"], one["peer"], entry), []).append((ours, ratio))
    found = []
    for (network, peer, entry), several in grouped.items():
        signs = [np.sign(o["kl_gain"]) * (abs(o["kl_gain"]) > o["kl_gain_standard_error"]) for o, _ in several]
        ratio = float(np.exp(np.mean(np.log([ratio for _, ratio in several]))))
        found.append(Score(network, peer, entry, signs.count(1), signs.count(0), signs.count(-1), ratio))
    return found
