"""A policy carried out with the steps that were asked for, and what each of them gained on images that none has seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bitplan.network import Network, Weights
from bitplan.policies.realise.calibrate import calibrate
from bitplan.policies.realise.checkpoint import LayerRecords, Records
from bitplan.policies.realise.distil import Distance, held_back_distance
from bitplan.policies.realise.front import Images, count_images, default_batch
from bitplan.policies.realise.pipeline import Progress, Realisation, code_formats, realise
from bitplan.policies.realise.steps import LAYER_STEPS, layer_steps
from bitplan.policies.realise.tune import tune
from bitplan.recovery_names import TUNE, Gain
from bitplan.simulate import Simulator
from bitplan.variant import FLOAT32, Variant

HELD_BACK = 5
"""One of so many calibration images, spread evenly among them, is held back."""

ROUNDED = "rounded"
"""What comes before the first step."""


@dataclass(frozen=True)
class Recovered:
    """A policy carried out, and the loss after each step, rounding first; empty where no image could be held back."""

    realisation: Realisation
    gains: tuple[Gain, ...]


def recover(
    network: Network,
    weights: Weights,
    images: Images,
    variants: Mapping[str, Variant],
    steps: Sequence[str],
    *,
    records: Records | None = None,
    progress: Progress | None = None,
) -> Recovered:
    """Carries out one variant per layer with these steps (recovery_names.py) on raw calibration images [N, C, H, W].

    All steps are fitted to four fifths of the images; the others judge them: a step that does not lower the loss there
    is left out. Fewer than HELD_BACK images are all fitted to, and `tune`, which needs a judge, is left out. With every
    layer float32 the network stays bit-identical. With `records` an interrupted call goes on behind the last finished
    layer or epoch. Raises as `realise`.
    """
    alone = layer_steps(steps)
    needed = code_formats(variants.values())
    fitted, held_back = split(images)
    if held_back is None or all(variant == FLOAT32 for variant in variants.values()):
        recoveries, finished = [LAYER_STEPS[step] for step in alone], LayerRecords(records, " ".join(alone))
        result = realise(
            network, weights, fitted, variants, recoveries=recoveries, finished=finished, progress=progress
        )
        return Recovered(result, ())
    simulator, batch = Simulator(network, weights), default_batch(network)
    if progress:
        progress(0, len(network.layers), "activation ranges")
    ranges = calibrate(simulator, fitted, needed, batch=batch)
    distance = Distance(network, temperature=1.0)
    gains: list[Gain] = []
    best: Realisation | None = None

    def judged(step: str, found: Realisation) -> Realisation:
        loss = held_back_distance(simulator, distance, found.layers, found.ranges, held_back, batch)
        kept = best is None or loss < min(gain.held_back_loss for gain in gains)
        gains.append(Gain(step, loss, kept))
        return found if kept or best is None else best

    for count in range(len(alone) + 1):
        found = realise(
            network,
            weights,
            fitted,
            variants,
            ranges=ranges,
            recoveries=[LAYER_STEPS[step] for step in alone[:count]],
            finished=LayerRecords(records, " ".join(alone[:count])),
            progress=progress,
        )
        best = judged(alone[count - 1] if count else ROUNDED, found)
    assert best is not None
    if TUNE in steps:

        def report(done: int, total: int) -> None:
            if progress:
                progress(done, total, "tuning scales and biases")

        layers = tune(simulator, best.layers, ranges, fitted, held_back, records=records, progress=report)
        best = judged(TUNE, Realisation(layers, ranges))
    return Recovered(best, tuple(gains))


def split(images: Images) -> tuple[Images, Images | None]:
    """The images to fit to, and those that are held back: every HELD_BACK-th; none of fewer than HELD_BACK."""
    count = count_images(images)
    if count < HELD_BACK:
        return images, None
    chosen = np.arange(count) % HELD_BACK == HELD_BACK - 1
    if isinstance(images, Mapping):
        return {n: x[~chosen] for n, x in images.items()}, {n: x[chosen] for n, x in images.items()}
    return images[~chosen], images[chosen]
