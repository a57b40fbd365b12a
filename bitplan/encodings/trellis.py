"""The search for the code whose decoded levels are nearest to given weights: the Viterbi algorithm over the register.

The register of `xor_network` makes the code a tree whose branches meet again after twelve bits, a trellis of 4,096
states. The best path through it is the best of all codes, which makes this a trellis source code: with a long register
its error comes as near as one likes to what the rate allows at all (Viterbi and Omura, IEEE Trans. IT 20, 1974).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bitplan.compiled import require_same_build
from bitplan.encodings.xor_network import STEP, first_bits, steps_of


def nearest_registers(costs: NDArray[np.float32], rate: int, table: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Contents of the register, int64 [steps], such that the sum of `costs` along them is least: exactly for up to
    1,152 steps; longer paths are decided 1,024 steps at a time, after a look at 128 more, which finds the same but in
    the rarest cases. About 1 us per weight.

    costs: float32 [count, 3], finite, of the levels -1, 0 and 1 for each weight; rate: sixteenths of a bit per step;
    table: `network_table`.
    """
    from bitplan.encodings import _trellis  # here, because planning does without compiled code

    require_same_build(_trellis)
    steps = steps_of(len(costs))
    padded = np.zeros((steps * STEP, 3), np.float32)
    padded[: len(costs)] = costs
    return _trellis.nearest_registers(padded, np.diff(first_bits(steps, rate), prepend=0), table)
