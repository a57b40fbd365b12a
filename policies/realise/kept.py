"""Which weights an APB layer keeps: those that the layer's outputs need most."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bitplan.encodings import EncodedLayer, encoding_of
from bitplan.encodings.apb import Apb, unit_of
from bitplan.policies.realise.rounding import Doubles, Problem


def exchanged(problem: Problem, layer: EncodedLayer, levels: Doubles, scale: Doubles) -> EncodedLayer:
    """The layer with as many kept weights as before, chosen anew around `levels` [G, R, K] and `scale` [G, R]: those whose
    choice lowers the output error most, each looked at with all others in place. Levels and scales are rounded to the
    layer's unit and the new kept set, and want descending again."""
    slope = (scale[..., None] * levels - problem.target) @ problem.curvature
    curve = np.maximum(np.einsum("gkk->gk", problem.curvature), 1e-300)[:, None, :]
    step = np.where(scale > 0, scale, 1.0)[..., None]
    wanted = levels - slope / (curve * step)
    encoding, unit = encoding_of(layer.variant), unit_of(layer)
    assert isinstance(encoding, Apb)
    binary = np.where(wanted < 0, -unit, unit)
    kept = np.clip(np.rint(wanted), -encoding.top, encoding.top)
    # The error in a single level is a parabola around `wanted`.
    benefit = curve * step**2 * ((binary - wanted) ** 2 - (kept - wanted) ** 2)
    flat = np.where(scale[..., None] > 0, benefit, 0.0).reshape(-1)
    count = len(layer.kept_positions)
    positions = np.sort(np.argpartition(-flat, count - 1)[:count]) if count else layer.kept_positions
    chosen = np.where(np.sign(levels) < 0, -unit, unit).astype(np.float64).reshape(-1)
    chosen[positions] = kept.reshape(-1)[positions]
    return replace(
        layer,
        levels=chosen.reshape(layer.levels.shape).astype(np.int8),
        kept_positions=positions,
        scale=scale.reshape(-1).astype(np.float32),
    )
