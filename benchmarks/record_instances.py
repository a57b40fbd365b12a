"""Records the programs of real networks that benchmarks/solvers.py runs on.

    python benchmarks/record_instances.py [NAME ...] [--cache build/instances] [--output benchmarks/instances]

Quadratic ones: losses and their pairs by `gram` on a few calibration images, every encoding of the default menu but
float32, the file's bytes limited at several bits per weight. Separable ones: losses by `tempered`, activations of 8 to 1
bits, so that formats are converted between layers; bytes, latency and memory are limited, at shares of what uniform int8
takes. Networks: ResNet-20, ResNet-44 and EfficientNet-Lite0 as trained (BITPLAN_TEST_DATA); torchvision's ResNet-18 and
MobileNetV2 as they are initialised, with batch-norm statistics of one pass over the calibration images, which the file's
`origin` says. Profiles are kept in --cache; a run that was interrupted goes on.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torchvision
from networks import cases, imagenet
from numpy.typing import NDArray

from bitplan.capture import capture
from bitplan.kernels.artifact import constant_bytes
from bitplan.network import Network, Preprocessing
from bitplan.optimizer.build_problem import LOSS, build_problem
from bitplan.optimizer.predict import Predictor
from bitplan.optimizer.problem import Problem, frozen
from bitplan.optimizer.problem_file import write_problem
from bitplan.policies.menu import Menu, menu_for
from bitplan.profiles.device import DeviceProfile
from bitplan.profiles.loss import LossProfile
from bitplan.profiles.measure_latency import measure as measure_latency
from bitplan.profiles.measure_loss import measure as measure_loss
from bitplan.targets import Targets
from bitplan.variant import FLOAT32, Variant

LOW_ACTIVATIONS = (
    *("int8", "int4", "int3", "ternary", "binary", "int4@u4", "ternary@u4", "ternary@u2", "binary@u4", "binary@u2"),
    *("binary@u1", "apb@u4:kept=0.02", "apb@u2:kept=0.02"),
)
LATENCY_ROUNDS = 3
"""Visits of each policy that the device profile is made of: solvers do not mind noise."""
LOSS_BITS = 27
"""The largest total of a recorded loss, in bits: losses of a few images say no more, and files stay small."""
STATISTICS = 64
"""Images of the pass that gives untrained networks their batch-norm statistics."""


@dataclass(frozen=True)
class Subject:
    """A network, the images [N, C, H, W] that its losses are measured on, and where its weights come from."""

    network: Network
    weights: dict[str, NDArray[np.float32]]
    images: NDArray[np.uint8]
    origin: str


@dataclass(frozen=True)
class Recording:
    """What is recorded of a network: `budgets` by the ending of the file's name, as bits per weight or, where
    `separable`, as shares of uniform int8's bytes, latency and memory."""

    subject: Callable[[int], Subject]
    images: int
    budgets: Mapping[str, tuple[float, ...]]
    separable: bool = False


def trained(name: str) -> Callable[[int], Subject]:
    def load(images: int) -> Subject:
        case = cases([name])[0]
        return Subject(case.network, case.weights, case.calibration[:images], "trained weights")

    return load


def untrained(name: str) -> Callable[[int], Subject]:
    def load(images: int) -> Subject:
        data = imagenet()["calibration_x"]
        mean, std = (123.7, 116.3, 103.5), (58.4, 57.1, 57.4)
        torch.manual_seed(0)
        module = torchvision.models.get_model(name, weights=None)
        # one deviation for all channels is near enough for statistics
        with_statistics(module, (torch.from_numpy(data[:STATISTICS]) - torch.tensor(mean).reshape(3, 1, 1)) / 57.6)
        network, weights = capture(module, torch.zeros(2, *data.shape[1:]), preprocessing=Preprocessing(mean, std))
        return Subject(
            network, weights, data[:images], "UNTRAINED weights: torchvision's initialisation, batch-norm statistics"
        )

    return load


def with_statistics(module: torch.nn.Module, images: torch.Tensor) -> None:
    """Gives every batch norm the statistics of these images, and leaves the module in evaluation mode."""
    norms = [part for part in module.modules() if isinstance(part, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # the plain average over all batches
        norm.reset_running_stats()
    module.train()
    with torch.no_grad():
        for batch in images.split(16):
            module(batch)
    module.eval()


RECORDINGS: Mapping[str, Recording] = {
    "resnet20": Recording(trained("resnet20"), 128, {f"{b}bits": (b,) for b in (3.0, 2.0, 1.5)}),
    "resnet44": Recording(trained("resnet44"), 64, {f"{b}bits": (b,) for b in (3.0, 2.0, 1.5)}),
    "efficientnet-lite0": Recording(trained("efficientnet_lite0"), 12, {f"{b}bits": (b,) for b in (4.0, 3.0, 2.0)}),
    "resnet18-untrained": Recording(untrained("resnet18"), 8, {f"{b}bits": (b,) for b in (2.0, 1.5)}),
    "mobilenetv2-untrained": Recording(untrained("mobilenet_v2"), 8, {f"{b}bits": (b,) for b in (3.0, 2.0)}),
    "resnet20-latency": Recording(
        trained("resnet20"), 64, {"tight": (0.35, 0.7, 0.65), "loose": (0.6, 0.85, 0.8)}, True
    ),
}


def record(name: str, recording: Recording, cache: Path, output: Path) -> None:
    subject = recording.subject(recording.images)
    encodings = LOW_ACTIVATIONS if recording.separable else None
    offered = menu_for(subject.network, encodings=encodings)
    menu = {layer: tuple(v for v in variants if v != FLOAT32) for layer, variants in offered.items()}
    estimator = "tempered" if recording.separable else "gram"
    losses = loss_profile(subject, menu, estimator, cache / f"{name}.loss.arrow")
    device = device_profile(subject.network, menu, cache / f"{name}.device.arrow") if recording.separable else None
    origin = f"{name}: {estimator} on {len(subject.images)} images, {subject.origin}"
    for ending, shares in recording.budgets.items():
        targets = shares_of_int8(subject.network, menu, device, shares) if device else bits(subject.network, shares[0])
        program = build_problem(subject.network, menu, targets, loss_profile=losses, device_profile=device)
        sizes = [len(group.options) for group in program.problem.groups[: len(menu)]]
        path = output / f"{name}-{max(sizes)}variants-{ending}.arrow"
        write_problem(path, coarser(program.problem), origin)
        print(f"{path}: {len(sizes)} layers, {sum(sizes)} options, {path.stat().st_size:,} bytes", flush=True)


def loss_profile(subject: Subject, menu: Menu, estimator: str, path: Path) -> LossProfile:
    known = LossProfile.load(path) if path.exists() else None
    profile = measure_loss(
        subject.network,
        subject.weights,
        subject.images,
        menu,
        estimator=estimator,
        checkpoint=path.with_suffix(".journal"),
        profile=known,
    )
    profile.save(path)
    return profile


def device_profile(network: Network, menu: Menu, path: Path) -> DeviceProfile:
    known = DeviceProfile.load(path) if path.exists() else None
    profile = measure_latency(network, menu, profile=known, rounds=LATENCY_ROUNDS, save=lambda found: found.save(path))
    profile.save(path)
    return profile


def bits(network: Network, per_weight: float) -> Targets:
    """Bytes: the constant part, four for every output channel, and so many bits per weight."""
    weights = sum(network.weight_shape(node).count for node in network.layers)
    channels = sum(node.shape[0] for node in network.layers)
    return Targets(bytes=constant_bytes(network) + 4 * channels + int(per_weight / 8 * weights))


def shares_of_int8(network: Network, menu: Menu, device: DeviceProfile, shares: tuple[float, ...]) -> Targets:
    """Bytes, latency and memory at these shares of uniform int8's."""
    int8 = Predictor(network, device_profile=device).totals(dict.fromkeys(menu, Variant.parse("int8")))
    of_bytes, of_latency, of_memory = (
        share * (int8[name] or 0)
        for share, name in zip(shares, ("file_bytes", "latency_ms", "resident_bytes"), strict=True)
    )
    return Targets(bytes=int(of_bytes), latency=of_latency / 1e3, memory=int(of_memory))


def coarser(problem: Problem) -> Problem:
    """The problem with its loss in larger units."""
    resources = []
    for resource in problem.resources:
        shift = max(resource.largest_total.bit_length() - LOSS_BITS, 0) if resource.target == LOSS else 0
        if shift:
            resource = replace(
                resource,
                linear=tuple(frozen(np.rint(t / 2**shift).astype(np.int64)) for t in resource.linear),
                pairs={link: frozen(np.rint(t / 2**shift).astype(np.int64)) for link, t in resource.pairs.items()},
                constant=round(resource.constant / 2**shift),
                resolution=resource.resolution * 2**shift,
            )
        resources.append(resource)
    return replace(problem, resources=tuple(resources))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(RECORDINGS), metavar="NAME", help=", ".join(RECORDINGS))
    parser.add_argument("--cache", type=Path, default=Path("build/instances"))
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "instances")
    arguments = parser.parse_args()
    for folder in (arguments.cache, arguments.output):
        folder.mkdir(parents=True, exist_ok=True)
    if unknown := [name for name in arguments.names if name not in RECORDINGS]:
        parser.error(f"unknown network {unknown[0]!r}; known are {', '.join(RECORDINGS)}")
    for name in arguments.names:
        record(name, RECORDINGS[name], arguments.cache, arguments.output)


if __name__ == "__main__":
    main()
