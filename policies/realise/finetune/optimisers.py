"""The optimisers of a trained network, and the schedule that they share."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from bitplan.policies.realise.finetune.network import TrainedNetwork
from bitplan.policies.realise.finetune.settings import Settings

WARM_UP = 0.02
"""Fraction of all steps in which the learning rate rises."""
THRESHOLD_RATE = 1e-3
"""First learning rate of thresholds, in units of the layer's magnitude."""


class Optimisers:
    """AdamW (arXiv 1711.05101) or SGD with momentum for weights, scales and biases, and Adam without decay for the
    thresholds of APB; all with a cosine schedule (arXiv 1608.03983). Latent weights alone decay."""

    def __init__(self, network: TrainedNetwork, settings: Settings) -> None:
        rules = [network.layer(node.name).rule for node in network.network.layers]
        thresholds = [p for rule in rules for p in rule.thresholds()]
        latent = [p for rule in rules for p in rule.weights()]
        special = {id(p) for p in (*latent, *thresholds)}
        others = [p for p in network.parameters() if p.requires_grad and id(p) not in special]
        groups = [{"params": latent, "weight_decay": settings.weight_decay}, {"params": others, "weight_decay": 0.0}]
        self.settings = settings
        self.main: torch.optim.Optimizer
        if settings.optimiser == "sgd":
            self.main = torch.optim.SGD(groups, settings.rate, momentum=0.9, nesterov=True)
        else:
            self.main = torch.optim.AdamW(groups, settings.rate)
        self.thresholds = torch.optim.Adam(thresholds, THRESHOLD_RATE) if thresholds else None
        self.trained = [p for p in network.parameters() if p.requires_grad]

    def step(self, progress: float) -> None:
        """One step with the gradients that are there, at this fraction of all steps."""
        if self.settings.clip:
            torch.nn.utils.clip_grad_norm_(self.trained, self.settings.clip)
        share = min(1.0, (progress + 1e-3) / WARM_UP) * 0.5 * (1 + math.cos(math.pi * progress))
        for optimiser, rate in ((self.main, self.settings.rate), (self.thresholds, THRESHOLD_RATE)):
            if optimiser is not None:
                for group in optimiser.param_groups:
                    group["lr"] = rate * share
                optimiser.step()

    def zero_grad(self) -> None:
        for parameter in self.trained:
            parameter.grad = None

    def tensors(self) -> dict[str, Tensor]:
        """The whole state as named tensors."""
        return {
            f"{name}.{number}.{key}": torch.as_tensor(value)
            for name, optimiser in self._named()
            for number, state in optimiser.state_dict()["state"].items()
            for key, value in state.items()
            if value is not None
        }

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Takes over what `tensors` returned."""
        for name, optimiser in self._named():
            state: dict[int, dict[str, Any]] = {}
            for path, tensor in tensors.items():
                owner, number, key = path.split(".")
                if owner == name:
                    state.setdefault(int(number), {})[key] = tensor
            optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})

    def _named(self) -> list[tuple[str, torch.optim.Optimizer]]:
        found = [("main", self.main)]
        return found if self.thresholds is None else [*found, ("thresholds", self.thresholds)]
