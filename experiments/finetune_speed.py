"""Processor time of a training step on ResNet-20 beside that of a plain float32 step with batch norm, in turn.

BITPLAN_TEST_DATA=DIR python -m experiments.finetune_speed [--rounds 5] [--bf16] [--variant ternary]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.networks import cases, resnet20
from bitplan.policies.realise import realise
from bitplan.policies.realise.finetune.loss import distillation
from bitplan.policies.realise.finetune.network import TrainedNetwork
from bitplan.policies.realise.finetune.optimisers import Optimisers
from bitplan.policies.realise.finetune.settings import Settings
from bitplan.simulate import Simulator
from bitplan.variant import Variant

BATCH = 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--variant", default="ternary")
    parser.add_argument("--normalise", action=argparse.BooleanOptionalAction, default=True)
    arguments = parser.parse_args()
    (case,) = cases(["resnet20"])
    variants = {node.name: Variant.parse(arguments.variant) for node in case.network.layers}
    settings = Settings(bf16=arguments.bf16, normalise=arguments.normalise)
    start = realise(case.network, case.weights, case.calibration[:BATCH], variants)
    trained = TrainedNetwork(case.network, case.weights, variants, start, settings)
    simulator, loss = Simulator(case.network, case.weights), distillation(case.network, 4.0)
    optimisers = Optimisers(trained, settings)
    module = resnet20()[0].train().requires_grad_(True).to(memory_format=torch.channels_last)
    plain_optimiser = torch.optim.SGD(module.parameters(), 1e-4, momentum=0.9)
    x = simulator.preprocess(case.calibration[:BATCH]).clone().contiguous(memory_format=torch.channels_last)
    labels = torch.zeros(BATCH, dtype=torch.int64)

    def plain() -> None:
        plain_optimiser.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=arguments.bf16):
            scores = module(x)
        F.cross_entropy(scores.float(), labels).backward()
        plain_optimiser.step()

    def teacher() -> dict[str, torch.Tensor]:
        with torch.autocast("cpu", torch.bfloat16, enabled=arguments.bf16):
            outputs = simulator.resume({case.network.inputs[0].name: x}, 0)
        return {name: value.float().clone() for name, value in outputs.items()}

    def ours() -> None:
        optimisers.zero_grad()
        full = teacher()
        trained.advance(0.1)
        with torch.autocast("cpu", torch.bfloat16, enabled=arguments.bf16):
            outputs = trained(x)
        loss(outputs, full, None).backward()
        optimisers.step(0.1)
        trained.constrain()

    seconds: dict[str, list[float]] = {"plain": [], "teacher": [], "ours": []}
    steps: dict[str, Callable[[], object]] = {"plain": plain, "teacher": teacher, "ours": ours}
    for number in range(arguments.rounds + 1):
        for name, step in steps.items():
            began = time.process_time()
            step()
            if number:  # the first one warms up
                seconds[name].append(time.process_time() - began)
    found = {name: float(np.median(times)) for name, times in seconds.items()}
    ratio = found["ours"] / found["plain"]
    print({name: round(value, 3) for name, value in found.items()}, f"ours / plain {ratio:.2f}")


if __name__ == "__main__":
    main()
