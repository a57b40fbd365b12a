"""A policy carried out with the steps that were asked for, and what each of them gained on images that none has seen."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bitplan.errors import UsageError
from bitplan.formats import Range
from bitplan.network import Network, Weights
from bitplan.policies.realise.block_rounding import learn_rounding
from bitplan.policies.realise.calibrate import calibrate
from bitplan.policies.realise.checkpoint import LayerRecords, Records
from bitplan.policies.realise.distil import Distance, held_back_distance
from bitplan.policies.realise.equalise import equalised
from bitplan.policies.realise.front import Images, count_images, default_batch
from bitplan.policies.realise.pipeline import MEMORY, Progress, Realisation, code_formats, realise
from bitplan.policies.realise.steps import OWN_WEIGHTS, recoveries
from bitplan.policies.realise.tune import tune
from bitplan.policies.realise.warm import WarmStart
from bitplan.recovery_names import (
    BLOCKS,
    DEFAULT_RANGES,
    DEFAULT_TUNE_EPOCHS,
    EQUALISE,
    LAYER_STEPS,
    RECONSTRUCT,
    STEPS,
    Gain,
    layer_steps,
)
from bitplan.simulate import Simulator
from bitplan.variant import F32, FLOAT32, Variant

HELD_BACK = 5
"""One of so many calibration images, spread evenly among them, is held back."""

ROUNDED = "rounded"
"""What comes before the first step."""

Watch = Callable[[str, Realisation], None]
"""Called with a step and the best realisation so far."""


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
    method: str = DEFAULT_RANGES,
    tune_epochs: int = DEFAULT_TUNE_EPOCHS,
    warm: WarmStart | None = None,
    records: Records | None = None,
    progress: Progress | None = None,
    watch: Watch | None = None,
) -> Recovered:
    """Carries out one variant per layer with these steps (recovery_names.py) on raw calibration images [N, C, H, W];
    activation ranges are found by `method` (range_methods.py).

    All steps are fitted to four fifths of the images; the others judge them: a step that does not lower the loss there
    is left out; in the place of reconstruction, one to the layers' own weights is tried. Fewer than HELD_BACK images are
    all fitted to, and the steps on the whole network, which need a judge, are left out. With every layer float32 the network stays bit-identical. With `records` an interrupted call goes on
    behind the last finished layer, block or epoch. `warm`: a trained network to begin with, as in `realise`; its ranges
    are completed by those that it lacks. `watch` is told what rounding and each step left as the best so far, and may end all
    by an exception. Raises as `realise`, and UsageError where weights of a trained network would be equalised.
    """
    fitted, held_back = split(images)
    if warm:
        if EQUALISE in steps:
            raise UsageError(f"{EQUALISE} changes full-precision weights before training; leave it out of recovery")
        formats = code_formats(variants.values())
        warm = warm.with_ranges(Simulator(network, weights), fitted, formats, method=method)
    if held_back is None or all(variant == FLOAT32 for variant in variants.values()):
        alone = layer_steps(steps)
        result = realise(
            network,
            weights,
            fitted,
            variants,
            ranges=warm.ranges if warm else None,
            method=method,
            recoveries=recoveries(alone),
            warm=warm,
            finished=LayerRecords(records, " ".join(alone)),
            progress=progress,
        )
        return Recovered(result, ())
    job = Job(network, variants, fitted, method, warm, records, progress)
    judge = Judge(Simulator(network, weights), held_back, watch)
    source = job.source(weights)
    judge(ROUNDED, job.layer_by_layer(source, ()))
    judge.tell(ROUNDED)
    done: tuple[str, ...] = ()
    for step in (step for step in STEPS if step in steps):
        if step == EQUALISE:
            quantised = {name for name, variant in variants.items() if variant.activation != F32}
            other = job.source(equalised(network, weights, fitted, quantised))
            if judge(EQUALISE, job.layer_by_layer(other, (EQUALISE,))):
                source, done = other, (EQUALISE,)
            judge.tell(step)
            continue
        before, done = done, (*done, step)
        if step in LAYER_STEPS:
            kept = judge(step, job.layer_by_layer(source, done))
            if step == RECONSTRUCT and not kept:
                judge(OWN_WEIGHTS, job.layer_by_layer(source, (*before, OWN_WEIGHTS)))
        elif step == BLOCKS:
            layers = learn_rounding(
                source.simulator,
                judge.best.layers,
                source.ranges,
                fitted,
                held_back,
                memory=MEMORY // 2,
                finished=LayerRecords(records, " ".join(done)),
                progress=job.reported("learning the rounding of blocks"),
            )
            judge(step, Realisation(layers, source.ranges))
        else:
            report = job.reported("tuning scales and biases")
            layers = tune(
                source.simulator,
                judge.best.layers,
                source.ranges,
                fitted,
                held_back,
                epochs=tune_epochs,
                records=records,
                progress=report,
            )
            judge(step, Realisation(layers, source.ranges))
        judge.tell(step)
    return Recovered(judge.best, tuple(judge.gains))


@dataclass(frozen=True)
class Source:
    """Weights that layers are made of, as they came or equalised, and the ranges of their values."""

    weights: Weights
    simulator: Simulator
    ranges: dict[str, dict[str, Range]]


@dataclass(frozen=True)
class Job:
    """What all steps share."""

    network: Network
    variants: Mapping[str, Variant]
    fitted: Images
    method: str
    warm: WarmStart | None
    records: Records | None
    progress: Progress | None

    def source(self, weights: Weights) -> Source:
        """Calibrates the ranges, where they are not those of a trained network."""
        if self.warm:
            ranges = {name: dict(by_format) for name, by_format in self.warm.ranges.items()}
            return Source(weights, Simulator(self.network, weights), ranges)
        if self.progress:
            self.progress(0, len(self.network.layers), "activation ranges")
        simulator, formats = Simulator(self.network, weights), code_formats(self.variants.values())
        batch = default_batch(self.network)
        return Source(weights, simulator, calibrate(simulator, self.fitted, formats, batch=batch, method=self.method))

    def layer_by_layer(self, source: Source, steps: Sequence[str]) -> Realisation:
        """With those of `steps` that act on one layer; finished layers are recorded under all of them."""
        return realise(
            self.network,
            source.weights,
            self.fitted,
            self.variants,
            ranges=source.ranges,
            recoveries=recoveries(step for step in steps if step != EQUALISE),
            warm=self.warm,
            finished=LayerRecords(self.records, " ".join(steps)),
            progress=self.progress,
        )

    def reported(self, what: str) -> Callable[[int, int], None] | None:
        """Progress of a step on the whole network."""
        progress = self.progress
        return (lambda done, total: progress(done, total, what)) if progress else None


class Judge:
    """The loss on held-back images against the network as it came; remembers the best realisation so far. Outputs are softened,
    as tuning softens them: a network is all but certain of calibration images that it was trained on."""

    def __init__(self, simulator: Simulator, held_back: Images, watch: Watch | None = None) -> None:
        self.simulator, self.held_back, self.watch = simulator, held_back, watch
        self.distance, self.batch = Distance(simulator.network), default_batch(simulator.network)
        self.gains: list[Gain] = []
        self.best = Realisation({}, {})
        """Of the calls so far."""

    def __call__(self, name: str, found: Realisation) -> bool:
        """Whether the loss fell; the first call counts as a fall. `name`: of what was done."""
        loss = held_back_distance(self.simulator, self.distance, found.layers, found.ranges, self.held_back, self.batch)
        kept = not self.gains or loss < min(gain.held_back_loss for gain in self.gains)
        self.gains.append(Gain(name, loss, kept))
        if kept:
            self.best = found
        return kept

    def tell(self, step: str) -> None:
        """That a step is over."""
        if self.watch:
            self.watch(step, self.best)


def split(images: Images) -> tuple[Images, Images | None]:
    """The images to fit to, and those that are held back: every HELD_BACK-th; none of fewer than HELD_BACK."""
    count = count_images(images)
    if count < HELD_BACK:
        return images, None
    chosen = np.arange(count) % HELD_BACK == HELD_BACK - 1
    if isinstance(images, Mapping):
        return {n: x[~chosen] for n, x in images.items()}, {n: x[chosen] for n, x in images.items()}
    return images[~chosen], images[chosen]
