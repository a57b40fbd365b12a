"""The process that `timing.time_module` starts: times one module and prints its quantiles as JSON.

python -m bitplan.hybrid.time_module FOLDER [--replaced] [--rest]
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file
from torch import Tensor, nn

from bitplan.config import load_config, merge
from bitplan.hybrid.leaves import find_leaves
from bitplan.hybrid.runner import Runner
from bitplan.hybrid.trained import load_module
from bitplan.kernels.torch_modules import replace_layers, swap
from bitplan.profiles.anchor import Anchor
from bitplan.profiles.executor import Inputs
from bitplan.profiles.measure_policy import RUNS, SECONDS, announce
from bitplan.profiles.time_artifact import time_in_turn


class Clocked(nn.Module):
    """A leaf whose time is added up."""

    def __init__(self, leaf: nn.Module) -> None:
        super().__init__()
        self.leaf, self.seconds = leaf, 0.0

    def forward(self, input: Tensor) -> Tensor:
        before = perf_counter()
        y: Tensor = self.leaf.forward(input)
        self.seconds += perf_counter() - before
        return y


@dataclass(frozen=True)
class ModuleExecutor:
    """A module as measuring sees one; the time of `clocked` leaves does not count."""

    module: nn.Module
    example: Tensor
    clocked: tuple[Clocked, ...] = ()
    steps: tuple[str, ...] = ("module",)

    def time_steps(self, inputs: Inputs, runs: int) -> NDArray[np.float64]:
        return self.time_runs(inputs, runs)[:, None]

    def time_runs(self, inputs: Inputs, runs: int) -> NDArray[np.float64]:
        seconds = np.zeros(runs)
        with torch.inference_mode():
            for run in range(runs):
                for leaf in self.clocked:
                    leaf.seconds = 0.0
                before = perf_counter()
                self.module(self.example)
                seconds[run] = perf_counter() - before - sum(leaf.seconds for leaf in self.clocked)
        return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--replaced", action="store_true")
    parser.add_argument("--rest", action="store_true")
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    options = parser.parse_args()
    config = merge({}, load_config(options.folder / "optimize.yaml"))
    torch.set_num_threads(config.threads)
    module, preprocessing, _ = load_module(config)
    example = Runner(module, preprocessing, config.batch).prepared(
        load_file(options.folder / "images.safetensors")["images"]
    )
    clocked: list[Clocked] = []
    if options.replaced:
        replace_layers(module, options.folder / "network.bitplan", config.threads)
    elif options.rest:
        clocked = [Clocked(leaf.module) for leaf in find_leaves(module, example).leaves]
        swap(module, {one.leaf: one for one in clocked})
    executor = ModuleExecutor(module, example, tuple(clocked))
    measured = time_in_turn(executor, {}, Anchor(), options.runs, options.seconds, announce)
    print()  # the model may have left a line open
    json.dump(asdict(measured), sys.stdout)


if __name__ == "__main__":
    main()
