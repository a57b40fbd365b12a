"""Quantisation-aware training of a realised policy by distillation from the full-precision network."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bitplan.encodings import EncodedLayer
from bitplan.errors import DataError, UsageError
from bitplan.network import Network, Weights, weights_hash
from bitplan.policies.realise.correct import correct
from bitplan.policies.realise.finetune.augment import augmentation
from bitplan.policies.realise.finetune.checkpoint import Epoch, State, copied, load_state, set_aside
from bitplan.policies.realise.finetune.held_back import HeldBack, divide
from bitplan.policies.realise.finetune.loss import Loss, distillation
from bitplan.policies.realise.finetune.network import TrainedNetwork
from bitplan.policies.realise.finetune.optimisers import Optimisers
from bitplan.policies.realise.finetune.settings import Settings
from bitplan.policies.realise.pipeline import Progress, Realisation, check_variants, realise
from bitplan.policies.realise.subject import Subject
from bitplan.policies.realise.warm import WarmStart, following
from bitplan.simulate import Simulator
from bitplan.variant import FLOAT32, Variant

Images = NDArray[np.generic]
OnEpoch = Callable[[int, Epoch], None]
"""Called with the number of the epoch (0: the start) and what it came to."""

TRAINED_BY = 4
"""In the keys of checkpoints: raised with every change of what a step does, so that no training goes on from another one's."""

CORRECTED_ON = 512
"""Training images of the last relative correction."""


@dataclass(frozen=True)
class Finetuned:
    """The best realisation, the history of all epochs (the first entry is the start), the number of the best one, and
    whether the last relative correction helped. `best` is what the result has on the held-back images; `floats` are the
    layers' weights and biases before they are rounded to it, named and shaped as in Weights; `set_aside` is where the
    checkpoint of another training went that had the name of this one's."""

    realisation: Realisation
    floats: dict[str, NDArray[np.float32]]
    history: list[Epoch]
    best_epoch: int
    best: Epoch
    corrected: bool = False
    set_aside: Path | None = None


def finetune(
    network: Network,
    weights: Weights,
    images: Images,
    variants: Mapping[str, Variant],
    start: Realisation,
    *,
    warm: WarmStart | None = None,
    labels: NDArray[np.integer] | None = None,
    settings: Settings | None = None,
    loss: Loss | None = None,
    loss_name: str = "",
    checkpoint: Path | None = None,
    seconds: float = math.inf,
    progress: Progress | None = None,
    on_epoch: OnEpoch | None = None,
) -> Finetuned:
    """Trains what `realise` made of a policy, on raw images [N, ...] of which some are held back to choose the epoch by.

    `warm`: an earlier training whose weights before rounding latent weights begin with.
    `loss` replaces distillation; it needs a name for the checkpoint to be known by. `checkpoint` is written after every
    epoch; a training that finds its own there goes on from it, to the same bits. No epoch is begun that would take the
    training beyond `seconds`. With every layer float32 the start comes back as it is, the network bit-identical.

    Raises UsageError for a network with several inputs, DataError for too few images or labels that do not fit."""
    check_variants(network, variants)
    settings = settings or Settings()
    if len(network.inputs) != 1:
        raise UsageError(
            f"fine-tuning handles networks with one input, and this one has {len(network.inputs)}; leave --finetune out"
        )
    if labels is not None and len(labels) != len(images):
        raise DataError(f"there are {len(labels)} labels for {len(images)} training images; give one for each")
    settings.check_labels(labels)
    if all(variant == FLOAT32 for variant in variants.values()):
        nothing = Epoch(None, 0.0, 1.0)
        floats = {
            f"{n.name}.{part}": weights[f"{n.name}.{part}"] for n in network.layers for part in ("weight", "bias")
        }
        return Finetuned(start, floats, [nothing], 0, nothing)
    key = training_key(network, weights, images, variants, start, warm, labels, settings, loss_name)
    training = Training(network, weights, images, variants, start, warm, labels, settings, loss, key)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        return training.run(checkpoint, seconds, progress, on_epoch)


class Training:
    """One training, from its data to its result."""

    def __init__(
        self,
        network: Network,
        weights: Weights,
        images: Images,
        variants: Mapping[str, Variant],
        start: Realisation,
        warm: WarmStart | None,
        labels: NDArray[np.integer] | None,
        settings: Settings,
        loss: Loss | None,
        key: str,
    ) -> None:
        self.network, self.weights, self.variants, self.settings = network, weights, variants, settings
        self.start, self.key = start, key
        self.loss = loss or distillation(network, settings.temperature, settings.task)
        self.simulator = Simulator(network, weights)
        chosen, held = divide(len(images), settings.held_back, settings.seed)
        self.images = torch.from_numpy(np.ascontiguousarray(images[chosen]))
        known = None if labels is None else torch.from_numpy(np.asarray(labels, np.int64))
        self.labels = None if known is None else known[chosen]
        held_labels = None if known is None else known[held]
        self.held_back = HeldBack(network, self.simulator, images[held], held_labels, self.loss)
        self.augment = augmentation(settings.augment, tuple(images.shape[1:]))
        self.trained = TrainedNetwork(network, weights, variants, start, settings, warm)
        self.batch = min(settings.batch, len(chosen))
        self.steps = len(chosen) // self.batch

    def run(
        self, checkpoint: Path | None, seconds: float, progress: Progress | None, on_epoch: OnEpoch | None
    ) -> Finetuned:
        """Epochs until the last, the time or the patience runs out, then the projection."""
        self.trained.train()
        self.trained.observe(self._preprocessed(self.images[: 4 * self.batch]))
        optimisers = Optimisers(self.trained, self.settings)
        state = load_state(checkpoint, self.key) if checkpoint else None
        aside = set_aside(checkpoint) if state is None and checkpoint and checkpoint.exists() else None
        if state is None:
            first = self.held_back.measure(self.start)
            nothing = copied(self.trained)
            state = State(self.key, nothing, nothing, {}, torch.get_rng_state(), [first])
        else:
            self.trained.load_state_dict(state.network)
            optimisers.load(state.optimiser)
            torch.set_rng_state(state.random)
        for epoch, known in enumerate(state.history):
            if on_epoch:
                on_epoch(epoch, known)
        while not self._over(state, seconds):
            began = time.monotonic()
            mean = self._epoch(len(state.history), optimisers, state, progress)
            found = self.held_back.measure(self.trained.realisation(), mean)
            state.history.append(found)
            state.network = copied(self.trained)
            if found.held_back < state.history[state.best_epoch].held_back:
                state.best, state.best_epoch = state.network, len(state.history) - 1
            state.optimiser, state.random = optimisers.tensors(), torch.get_rng_state()
            state.seconds += time.monotonic() - began
            if checkpoint:
                state.save(checkpoint)
            if on_epoch:
                on_epoch(len(state.history) - 1, found)
        return replace(self._projected(state), set_aside=aside)

    def _over(self, state: State, seconds: float) -> bool:
        done, patience = len(state.history) - 1, self.settings.patience
        longest = state.seconds / done if done else 0.0
        return (
            done >= self.settings.epochs
            or state.seconds + longest > seconds
            or bool(patience and done - state.best_epoch >= patience)
        )

    def _epoch(self, number: int, optimisers: Optimisers, state: State, progress: Progress | None) -> float:
        """Trains for one epoch, the first being 1; returns the mean loss."""
        # From seed and epoch alone, so that a resumed training sees the same images.
        generator = torch.Generator().manual_seed(self.settings.seed * 100_003 + number)
        order = torch.randperm(len(self.images), generator=generator)
        total, all_steps = 0.0, self.settings.epochs * self.steps
        self.trained.train()
        for step in range(self.steps):
            done = (number - 1) * self.steps + step
            if progress:
                progress(done, all_steps, _described(number, state, total / max(step, 1)))
            chosen = order[step * self.batch : (step + 1) * self.batch]
            raw = self.images[chosen]
            x = self._preprocessed(self.augment(raw, generator) if self.augment else raw)
            self.trained.advance(done / all_steps)
            optimisers.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=self.settings.bf16):
                full = self._full_precision(x)
                outputs = self.trained(x)
            found = self.loss(outputs, full, None if self.labels is None else self.labels[chosen])
            value = found.item()
            if not math.isfinite(value):
                raise DataError(
                    f"the training loss is {value} in epoch {number}; lower learning_rate (it is {self.settings.rate:g})"
                )
            found.backward()  # type: ignore[no-untyped-call]
            optimisers.step(done / all_steps)
            self.trained.constrain()
            total += value
        self.trained.advance(number / self.settings.epochs)
        return total / self.steps

    def _preprocessed(self, raw: Tensor) -> Tensor:
        x = self.simulator.preprocess(raw).clone()  # outside of inference mode: autograd may save it
        return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x

    def _full_precision(self, x: Tensor) -> dict[str, Tensor]:
        outputs = self.simulator.resume({self.network.inputs[0].name: x}, 0)
        return {name: value.float().clone() for name, value in outputs.items()}

    def _projected(self, state: State) -> Finetuned:
        """The best epoch's layers, with a last relative correction if that helps on the held-back images."""
        best, corrected = state.history[state.best_epoch], False
        realisation = self.start
        self.trained.load_state_dict(state.best)
        floats = self.trained.floats()
        if state.best_epoch:
            self.trained.advance(state.best_epoch / self.settings.epochs)
            realisation = self.trained.realisation()
            other = self._corrected(realisation)
            found = self.held_back.measure(other, best.loss)
            if found.held_back < best.held_back:
                floats = following(floats, realisation.layers, other.layers)
                realisation, best, corrected = other, found, True
        return Finetuned(realisation, floats, state.history, state.best_epoch, best, corrected)

    def _corrected(self, realisation: Realisation) -> Realisation:
        def trained(subject: Subject, layer: EncodedLayer) -> EncodedLayer:
            return realisation.layers[subject.node.name]

        images = self.images[:CORRECTED_ON].numpy()
        steps = (trained, correct)
        return realise(self.network, self.weights, images, self.variants, ranges=realisation.ranges, recoveries=steps)


def training_key(
    network: Network,
    weights: Weights,
    images: Images,
    variants: Mapping[str, Variant],
    start: Realisation,
    warm: WarmStart | None,
    labels: NDArray[np.integer] | None,
    settings: Settings,
    loss_name: str,
) -> str:
    """SHA-256 of everything that the result of a training depends on, but for the code, for which TRAINED_BY stands."""
    digest = hashlib.sha256()
    described = [
        network.content_hash,
        weights_hash(weights),
        {name: str(variant) for name, variant in variants.items()},
        asdict(settings) | {"learning_rate": settings.rate},
        TRAINED_BY,
        loss_name,
        list(images.shape),
        torch.get_num_threads(),
    ]
    digest.update(json.dumps(described, sort_keys=True).encode())
    digest.update(np.ascontiguousarray(images).tobytes())
    if warm is not None:
        digest.update(warm.content_hash.encode())
    digest.update(b"" if labels is None else np.asarray(labels, np.int64).tobytes())
    held = {name: {form: [r.scale, r.zero_point] for form, r in found.items()} for name, found in start.ranges.items()}
    digest.update(json.dumps(held, sort_keys=True).encode())
    for layer in start.layers.values():
        for array in (layer.scale, layer.bias, layer.levels, layer.values, layer.kept_positions, layer.code):
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _described(number: int, state: State, loss: float) -> str:
    last = state.history[-1]
    worth = last.agreement if last.accuracy is None else last.accuracy
    what = "agreement" if last.accuracy is None else "accuracy"
    text = "" if worth is None else f", {what} {100 * worth:.2f} %"
    return f"epoch {number}, loss {loss:.4f}; held back: loss {last.held_back:.4f}{text}"
