"""A quadratic knapsack by iterated local search: what solves the programs of `estimators.py` alike for all estimators.

Minimise x' Q x over one choice per layer with sum(bytes) <= budget. Steepest descent over single changes and exchanges
of two layers at once, all evaluated by array operations, restarted from random kicks of the best.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
Choices = NDArray[np.int64]

KICKS = 150
KICKED = 4
"""Layers that a kick changes."""


def minimise(
    matrix: Matrix,
    layers: NDArray[np.int64],
    sizes: NDArray[np.int64],
    budget: int,
    *,
    kicks: int = KICKS,
    seed: int = 0,
) -> Choices:
    """The choices [L], one number per layer, of the least x'Qx that was found; `layers` [choices] says which layer each
    belongs to, `sizes` its bytes. Raises ValueError where the smallest choices exceed the budget."""
    random = np.random.default_rng(seed)
    by_layer = [np.flatnonzero(layers == layer) for layer in range(int(layers.max()) + 1)]
    smallest = np.array([own[np.argmin(sizes[own])] for own in by_layer])
    if sizes[smallest].sum() > budget:
        raise ValueError(f"the smallest choices take {sizes[smallest].sum()} bytes, more than {budget}")
    best = _descend(matrix, layers, sizes, budget, _separable(matrix, by_layer, sizes, budget))
    value = _value(matrix, best)
    for _ in range(kicks):
        trial = best.copy()
        for layer in random.choice(len(by_layer), min(KICKED, len(by_layer)), replace=False):
            trial[layer] = random.choice(by_layer[layer])
        for layer in random.permutation(len(by_layer)):
            if sizes[trial].sum() <= budget:
                break
            trial[layer] = smallest[layer]
        trial = _descend(matrix, layers, sizes, budget, trial)
        if _value(matrix, trial) < value - 1e-12:
            best, value = trial, _value(matrix, trial)
    return best


def _value(matrix: Matrix, choices: Choices) -> float:
    return float(matrix[np.ix_(choices, choices)].sum())


def _separable(matrix: Matrix, by_layer: Sequence[Choices], sizes: NDArray[np.int64], budget: int) -> Choices:
    """The best of the Lagrangian relaxation on the diagonal that fits."""
    single = np.diag(matrix)
    for price in np.geomspace(1e-9, 1e3, 241):
        choices = np.array([own[np.argmin(single[own] + price * sizes[own])] for own in by_layer])
        if sizes[choices].sum() <= budget:
            return choices
    return np.array([own[np.argmin(sizes[own])] for own in by_layer])


def _descend(
    matrix: Matrix, layers: NDArray[np.int64], sizes: NDArray[np.int64], budget: int, choices: Choices
) -> Choices:
    diagonal = np.diag(matrix)
    other = layers[:, None] != layers[None, :]
    while True:
        chosen = choices[layers]  # what each choice would replace
        field = 2 * matrix[:, choices].sum(1)
        own = matrix[np.arange(len(layers)), chosen]
        # x'Qx after replacing chosen[k] by k, less before
        single = diagonal + field - 2 * own - (field[chosen] - diagonal[chosen])
        both = matrix - matrix[:, chosen]
        both = both - (matrix[chosen] - matrix[np.ix_(chosen, chosen)])
        change = single[:, None] + single[None, :] + 2 * both
        added = sizes - sizes[chosen]
        room = budget - int(sizes[choices].sum())
        change[~(other & (added[:, None] + added[None, :] <= room))] = np.inf
        alone = np.where(added <= room, single, np.inf)
        first, second = np.unravel_index(np.argmin(change), change.shape)
        if min(change[first, second], alone.min()) >= -1e-12:
            return choices
        choices = choices.copy()
        if alone.min() <= change[first, second]:
            choices[layers[np.argmin(alone)]] = np.argmin(alone)
        else:
            choices[layers[first]], choices[layers[second]] = first, second
