"""What a peer is given: a torch module, and calibration images as the module wants them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import networks
import numpy as np
import torch
from torch import Tensor, nn

BATCH = 64
NETWORKS: dict[str, tuple[Callable[[], tuple[Any, dict[str, Any]]], Callable[[], dict[str, Any]]]] = {
    "resnet20": (networks.resnet20, networks.cifar10),
    "resnet44": (networks.resnet44, networks.cifar10),
    "vgg6": (networks.vgg6, networks.cifar10),
    "efficientnet_lite0": (networks.efficientnet_lite0, networks.imagenet),
}


@dataclass(frozen=True)
class Subject:
    """A module in eval mode, calibration images float32 [N, C, H, W] after preprocessing, and their labels [N]."""

    module: nn.Module
    images: Tensor
    labels: Tensor
    batch: int = BATCH

    @cached_property
    def layers(self) -> dict[str, nn.Module]:
        """The Conv2d and Linear modules by their paths."""
        return {name: module for name, module in self.module.named_modules() if is_layer(module)}

    @cached_property
    def weight_counts(self) -> dict[str, int]:
        return {name: weight_of(module).numel() for name, module in self.layers.items()}

    @property
    def batches(self) -> list[tuple[Tensor, Tensor]]:
        parts = [torch.split(tensor, self.batch) for tensor in (self.images, self.labels)]
        return list(zip(*parts, strict=True))


def is_layer(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d | nn.Linear)


def weight_of(module: nn.Module) -> Tensor:
    weight = module.weight
    assert isinstance(weight, Tensor)
    return weight


def load_subject(name: str, images: int) -> Subject:
    """A trained network with its first calibration images. Raises SystemExit for an unknown name."""
    if name not in NETWORKS:
        raise SystemExit(f"unknown network {name!r}; there are {', '.join(NETWORKS)}")
    build, load = NETWORKS[name]
    module, info = build()
    data = load()
    mean, std = (torch.tensor(info[key], dtype=torch.float32).view(1, -1, 1, 1) for key in ("mean", "std"))
    x = (torch.from_numpy(np.ascontiguousarray(data["calibration_x"][:images])).float() - mean) / std
    return Subject(module.eval(), x, torch.from_numpy(np.asarray(data["calibration_y"][:images], np.int64)))
