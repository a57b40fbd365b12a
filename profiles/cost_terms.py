"""What the time of a step is made of, as numbers that a model can be fitted to.

`terms` are amounts of work, each of which takes a time of its own: calls, multiply-adds as the tiles of the kernels
round them up, rows that are addressed, packed or copied, values that are written, weights that are fetched or decoded.
A step takes about the sum of its amounts times what one of each takes (a roofline without the roof: on one core,
moving and multiplying overlap little). `coordinates` place a step among others, for what that sum does not explain.
"""

from __future__ import annotations

from math import log, prod

from bitplan.network import IDENTITY
from bitplan.profiles.step_shape import StepShape

LANES = 16
"""Output channels of a block of weights in every kernel."""
PANEL = 64
"""Output channels of a panel, and bytes of a row of tiles."""
STEP = 4
"""Weights of an output that one instruction multiplies; other numbers of them take a slower way in products of one row."""
LEAST_RUN = 16
"""Channels below which a convolution's rows are packed rather than addressed."""
CHEAP_ACTIVATIONS = (IDENTITY.kind, "clamp")


def terms(shape: StepShape) -> tuple[float, ...]:
    """Amounts of work, none negative; as many for every step of one `family`."""
    written, read = prod(shape.output), sum(map(prod, shape.inputs))
    if not shape.is_layer:
        return 1.0, float(written), float(read), float(written * shape.taps)
    n, m, taps = shape.out_channels, shape.rows, shape.taps
    residual = written if len(shape.inputs) > 1 else 0
    curved = 0 if shape.parameters.get("activation") in CHEAP_ACTIVATIONS else written
    if shape.groups > 1:
        return 1.0, m * n * taps, m * _up(n, PANEL) * taps, written, prod(shape.inputs[0]), n * taps, residual, curved
    channels = shape.group_channels
    k = channels * taps
    weights = _up(n, LANES) * k
    if m == 1:
        return 1.0, weights, n, k, _up(n, PANEL) * _up(k, PANEL), weights * (k % STEP > 0), residual, curved
    in_place = taps == 1 and not shape.strided
    packed = not in_place and (channels < LEAST_RUN or channels % STEP > 0)
    addressed = not in_place and not packed
    copied = addressed and channels % PANEL > 0
    return (
        1.0,
        _up(m, LANES) * _up(k, PANEL) * _up(n, LANES),
        m * _up(k, STEP) * _up(n, 2 * LANES),
        m * _up(n, LANES),
        weights,
        m * _up(k, PANEL),
        m * taps * addressed,
        m * k * packed,
        m * taps * packed,
        m * k * copied,
        m * taps * copied,
        residual,
        curved,
    )


def coordinates(shape: StepShape) -> tuple[float, ...]:
    """Logarithms of sizes; as many for every step of one `family`."""
    if not shape.is_layer:
        return log(prod(shape.output)), log(shape.elements), log(shape.taps)
    n, m, taps, channels = shape.out_channels, shape.rows, shape.taps, shape.group_channels
    if shape.groups > 1:
        return log(n), log(m), log(taps), float(shape.strided), log(_up(n, PANEL) / n)
    k = channels * taps
    if m == 1:
        return log(n), log(k), log(_up(n, LANES) / n), log(_up(k, PANEL) / k), float(k % STEP > 0)
    waste = log(_up(n, PANEL) / n), log(_up(channels, PANEL) / channels)
    return log(_up(n, LANES)), log(_up(k, PANEL)), log(m), log(prod(shape.inputs[0])), log(taps), *waste


def family(shape: StepShape) -> str:
    """Steps that the same code runs: convolutions with and without groups, products of one row, or an operation."""
    if not shape.is_layer:
        return shape.operation
    if shape.groups > 1:
        return "grouped"
    return "row" if shape.rows == 1 else "rows"


def _up(size: int, step: int) -> int:
    """The size rounded up to whole steps."""
    return -(-size // step) * step


__all__ = ["coordinates", "family", "terms"]
