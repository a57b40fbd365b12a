"""The latency of a hybrid job: drop-ins as they are called from torch, and what stays in torch.

Calls are timed like the steps of a network (profiles/measure_latency.py), and kept in the same device profile under
signatures of their own. What stays in torch is the time of the float module less that of its leaves, measured in a
fresh process; the planner sees it as the step of the first input.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from math import fsum
from time import perf_counter

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bitplan.config import Config
from bitplan.hybrid.network import call_network
from bitplan.hybrid.timing import time_module
from bitplan.hybrid.trained import HybridTrained
from bitplan.kernels.layer_set import LayerSet
from bitplan.kernels.runtime import Runtime
from bitplan.kernels.torch_modules import Conv2d, DropIn, Linear
from bitplan.profiles.anchor import anchor_artifact
from bitplan.profiles.device import DeviceProfile, Latency
from bitplan.profiles.executor import Executor, Inputs, load_runtime
from bitplan.profiles.measure_policy import START_UP
from bitplan.profiles.steps import StepKeys, all_keys
from bitplan.profiling import known_or_timed
from bitplan.progress import Reporter
from bitplan.variant import F32

NO_TIME = Latency(0.0, 0.0, 0.0, 1)
WRITTEN = frozenset([F32])


def device_profile(trained: HybridTrained, config: Config, reporter: Reporter) -> DeviceProfile:
    """Latencies of the leaves of the hybrid network (all calls of one inference) and of the rest."""
    network, menu, places = call_network(trained.leaves, trained.menu)
    load = partial(load_calls, batch=config.batch)
    calls = known_or_timed(network, menu, config, reporter, what="drop-ins", step="call", load=load)
    with reporter.stage("timing what stays in torch", at_most=START_UP) as report:
        rest = time_module(config, trained.one_image(config.batch), rest=True, expect=report.takes)
        whole = time_module(config, trained.one_image(config.batch), expect=report.takes)
    factor = calls.anchor.median / rest.anchor.median
    reporter.say(
        f"the float module takes {1e3 * whole.latency.median:.3f} ms, of which {1e3 * rest.latency.median:.3f} ms are "
        "spent outside the layers that become drop-ins"
    )
    entries = dict.fromkeys(all_keys(trained.network, trained.menu, config.threads, config.batch), NO_TIME)
    keys = StepKeys(trained.network, config.threads, config.batch)
    call_keys = StepKeys(network, config.threads, config.batch)
    for leaf in trained.leaves:
        node = trained.network.by_name[leaf.name]
        for variant in trained.menu[leaf.name]:
            for kernel, key in keys.layer(node, variant, WRITTEN).items():
                parts = []
                for call in leaf.calls:
                    place = network.by_name[places[leaf.name, call]]
                    latency = calls.latency(call_keys.layer(place, variant, WRITTEN)[kernel])
                    parts.append(latency.scaled(call.times))
                entries[key] = _sum(parts)
    first = trained.network.inputs[0]
    own = {keys.operation(first, frozenset([form]))[first.name] for form in ("f32", "u8")}
    entries |= dict.fromkeys(own & entries.keys(), rest.latency.scaled(factor))
    return DeviceProfile(calls.fingerprint, calls.anchor, entries)


def _sum(parts: Sequence[Latency]) -> Latency:
    low, median, high = (fsum(getattr(part, name) for part in parts) for name in ("low", "median", "high"))
    return Latency(median, min(low, median), max(high, median), min(part.samples for part in parts))


def load_calls(artifact: bytes, threads: int, batch: int = 1) -> Executor:
    """The executor of a network of calls; the anchor runs as always."""
    if artifact == anchor_artifact():
        return load_runtime(artifact, threads)
    return CallExecutor.of(artifact, threads, batch)


@dataclass(frozen=True)
class CallExecutor:
    """Times every layer of an artifact as a call of its drop-in, on random float32 inputs of its own; the other steps,
    whose work the call includes, take no time."""

    steps: Sequence[str]
    calls: Sequence[tuple[DropIn, Tensor]]

    @classmethod
    def of(cls, artifact: bytes, threads: int, batch: int) -> CallExecutor:
        layers = LayerSet(artifact, threads)
        rng = torch.Generator().manual_seed(0)
        calls: list[tuple[DropIn, Tensor]] = []
        for name, info in layers.layers.items():
            x = torch.randn(batch, *info.input_shape, generator=rng)
            image = x.ndim == 4
            x = x.contiguous(memory_format=torch.channels_last) if image else x
            calls.append(((Conv2d if image else Linear)(layers, name), x))
        return cls(Runtime.from_bytes(artifact).steps, calls)

    def time_steps(self, inputs: Inputs, runs: int) -> NDArray[np.float64]:
        place = {name: number for number, name in enumerate(self.steps)}
        seconds = np.zeros((runs, len(self.steps)))
        with torch.inference_mode():
            for run in range(runs):
                for module, x in self.calls:
                    before = perf_counter()
                    module(x)
                    seconds[run, place[module.name]] = perf_counter() - before
        return seconds

    def time_runs(self, inputs: Inputs, runs: int) -> NDArray[np.float64]:
        return np.asarray(self.time_steps(inputs, runs).sum(1))
