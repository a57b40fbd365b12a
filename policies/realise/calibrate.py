"""The ranges of every value, from a network's values on calibration images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from bitplan.encodings import EncodedLayer
from bitplan.formats import Range, Ranges
from bitplan.network import SAME_RANGE, Input
from bitplan.policies.realise.front import Images, count_images, default_batch, slices, take
from bitplan.policies.realise.range_methods import best_range, whole
from bitplan.policies.realise.spread import Spread
from bitplan.recovery_names import DEFAULT_RANGES
from bitplan.simulate import Simulator
from bitplan.variant import U8


def calibrate(
    simulator: Simulator,
    images: Images,
    formats: Sequence[str] = (U8,),
    *,
    batch: int | None = None,
    method: str = DEFAULT_RANGES,
    layers: Mapping[str, EncodedLayer] | None = None,
    ranges: Ranges | None = None,
) -> dict[str, dict[str, Range]]:
    """For every value a range in each of `formats` (of codes), from raw images [N, C, H, W]. The values are those of full
    precision, or those that the network has with these `layers` and `ranges`.

    Each range is found by one of the methods of range_methods.py. In u8, a network input of bytes covers all that 0..255 can become in
    preprocessing, any other input all that occurs, and operations of SAME_RANGE share their input's range.
    Raises DataError, naming the value, where one is not finite.
    """
    batch = batch or default_batch(simulator.network)
    parts = [take(images, part) for part in slices(0, count_images(images), batch)]
    only_u8 = set(formats) <= {U8}
    spreads = {
        node.name: Spread()
        for node in simulator.network
        if formats and not (only_u8 and isinstance(node.op, SAME_RANGE))
    }
    for part in parts:
        for name, value in simulator.values(part, layers, ranges, spreads).items():
            spreads[name].extend(value, name)
    for part in parts:
        for name, value in simulator.values(part, layers, ranges, spreads).items():
            spreads[name].fill(value)
    result: dict[str, dict[str, Range]] = {}
    for node in simulator.network:
        found = result[node.name] = {}
        for form in formats:
            if form == U8 and isinstance(node.op, SAME_RANGE):
                found[form] = result[node.inputs[0]][form]
            elif form == U8 and isinstance(node.op, Input):
                found[form] = whole(*_input_bounds(simulator, images, node.name, spreads[node.name]))
            else:
                found[form] = best_range(spreads[node.name], form, method)
    return result


def _input_bounds(simulator: Simulator, images: Images, name: str, seen: Spread) -> tuple[float, float]:
    array = images if isinstance(images, np.ndarray) else images[name]
    if array.dtype != np.uint8:
        return seen.low, seen.high
    ends = [simulator.preprocess(np.full((1, *array.shape[1:]), end, np.uint8)) for end in (0, 255)]
    return min(float(end.min()) for end in ends), max(float(end.max()) for end in ends)
