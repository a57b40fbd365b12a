"""The search of `bitplan.encodings.trellis` written in numpy, sum for sum; about fifteen times slower."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bitplan.encodings.xor_network import REGISTER, STEP, first_bits, steps_of

SEGMENT, OVERLAP = 1024, 128
"""Steps that are decided at once, and steps beyond them that are looked at for it; paths that differ so long before
the end have merged, for all that matters."""

STATES = 1 << REGISTER
FAR = np.float32(1e30)

Costs = NDArray[np.float32]


def nearest_registers(costs: Costs, rate: int, table: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Contents of the register, int64 [steps], such that the sum of `costs` along them is least.

    costs: float32 [count, 3], of the levels -1, 0 and 1 for each weight; rate: sixteenths of a bit per step;
    table: `network_table`.
    """
    steps = steps_of(len(costs))
    padded = np.zeros((steps * STEP, 4), np.float32)
    padded[: len(costs), :3] = costs
    shifts = np.diff(first_bits(steps, rate), prepend=0)
    contents = np.empty(steps, np.int64)
    table_index = table.astype(np.intp)
    begin, entry = 0, -1
    while begin < steps:
        end = min(begin + SEGMENT + OVERLAP, steps)
        decided = end if end == steps else begin + SEGMENT
        part = byte_costs(padded[begin * STEP : end * STEP].reshape(-1, STEP, 4))
        best = best_path(part, shifts[begin:end], table_index, entry)
        contents[begin:decided] = best[: decided - begin]
        begin, entry = decided, int(best[decided - begin - 1])
    return contents


def byte_costs(costs: Costs) -> Costs:
    """Costs of the 256 bytes of two-bit codes, float32 [steps, 256], from those of each weight, [steps, 4, 4]."""
    low = costs[:, 1, :, None] + costs[:, 0, None, :]
    high = costs[:, 3, :, None] + costs[:, 2, None, :]
    return (high.reshape(-1, 16, 1) + low.reshape(-1, 1, 16)).reshape(-1, 256)


def best_path(costs: Costs, shifts: NDArray[np.int64], table: NDArray[np.intp], entry: int) -> NDArray[np.int64]:
    """The cheapest contents of the register through some steps; `entry` is its content before them, -1 for any."""
    steps = len(costs)
    total = np.zeros(STATES, np.float32) if entry < 0 else np.full(STATES, FAR)
    total[max(entry, 0)] = 0
    branch = np.empty(STATES, np.float32)
    chosen: list[list[NDArray[np.bool_]]] = []
    for step in range(steps):
        kept = []
        for _ in range(shifts[step]):  # one bit leaves: of the two registers that differ in it the cheaper one stays
            even, odd = total[::2], total[1::2]
            kept.append(odd < even)
            total = np.minimum(even, odd)
        chosen.append(kept)
        np.take(costs[step], table, out=branch, mode="clip")
        total = (branch.reshape(-1, len(total)) + total).ravel()
        if step % 64 == 0:
            total -= total.min()
    path = np.empty(steps, np.int64)
    state = int(total.argmin())
    for step in range(steps - 1, -1, -1):
        path[step] = state
        state &= (STATES >> len(chosen[step])) - 1
        for kept_bit in reversed(chosen[step]):
            state = 2 * state + int(kept_bit[state])
    return path
