"""Small random problems and networks that brute force can settle, with profiles made up for them."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import pytest

from bitplan.compute import supports_format
from bitplan.network import (
    RELU,
    Activate,
    Activation,
    Add,
    Concat,
    Conv2d,
    Input,
    Linear,
    MaxPool,
    Mean,
    Network,
    Node,
    ScaleShift,
    Slice,
    Softmax,
)
from bitplan.optimizer.builder import ProblemBuilder
from bitplan.optimizer.problem import Problem
from bitplan.profiles.device import DeviceProfile, Latency
from bitplan.profiles.fingerprint import Fingerprint
from bitplan.profiles.link import Link
from bitplan.profiles.loss import HASHES, LossProfile
from bitplan.profiles.steps import all_keys
from bitplan.variant import Variant


def make_problem(
    seed: int, *, groups: int = 5, options: int = 4, resources: int = 2, tightness: tuple[float, float] = (0.1, 0.9)
) -> Problem:
    """Random costs of either sign on groups, on some links, forbidden pairs on some links, limits somewhere between
    the cheapest and the dearest; sometimes several resources share the objective."""
    random = np.random.default_rng(seed)
    builder = ProblemBuilder()
    sizes = random.integers(1, options + 1, random.integers(1, groups + 1))
    for number, size in enumerate(sizes):
        builder.add_group(f"g{number}", [f"o{option}" for option in range(size)])
    links = [link for link in combinations(range(len(sizes)), 2) if random.random() < 0.5]
    several = random.random() < 0.3
    names = [("cost", "cost"), *([("cost 2", "cost")] if several else [])]
    names += [(f"r{number}", f"r{number}") for number in range(resources)]
    for name, target in names:
        linear = [random.integers(-20, 60, size) for size in sizes]
        tables = {}
        for a, b in links:
            if random.random() < 0.6:
                table = random.integers(-15, 40, (sizes[a], sizes[b]))
                tables[a, b] = table * (random.random(table.shape) < random.choice([0.3, 1.0]))
        low = sum(int(t.min()) for t in [*linear, *tables.values()])
        high = sum(int(t.max()) for t in [*linear, *tables.values()])
        limit = None if target == "cost" else float(round(low + random.uniform(*tightness) * (high - low)))
        builder.add_resource(name, target=target, counted=True, limit=limit)
        builder.add_constant(name, int(random.integers(-5, 6)))
        for group, costs in enumerate(linear):
            builder.add_linear(name, group, costs)
        for (a, b), table in tables.items():
            builder.add_pair(name, a, b, table)
    for a, b in links:
        if random.random() < 0.4:
            builder.forbid(a, b, random.random((sizes[a], sizes[b])) < 0.3)
    return builder.build("cost")


@pytest.fixture(scope="session")
def random_problem() -> Callable[..., Problem]:
    return make_problem


def make_dense_problem(
    seed: int, *, groups: int = 5, options: int = 4, limits: int = 2, forbidden: float = 0.0, rank: int | None = 3
) -> Problem:
    """A quadratic objective x'Qx with pair costs between all groups, of low rank and positive semidefinite, or without
    structure where `rank` is None; limits between the cheapest and the dearest; a share of the pairs forbidden between
    neighbours, and the second limit with pair costs between them."""
    random = np.random.default_rng(seed)
    builder = ProblemBuilder()
    sizes = random.integers(2, options + 1, groups)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    for number, size in enumerate(sizes):
        builder.add_group(f"g{number}", [f"o{option}" for option in range(size)])
    if rank is None:
        q = random.normal(size=(starts[-1], starts[-1]))
        q = q + q.T
    else:
        half = random.normal(size=(starts[-1], rank)) + 0.5
        q = half @ half.T
    builder.add_resource("loss")
    parts = [slice(starts[g], starts[g + 1]) for g in range(groups)]
    for g, own in enumerate(parts):
        builder.add_linear("loss", g, np.diag(q)[own])
        for h in range(g + 1, groups):
            builder.add_pair("loss", g, h, 2 * q[own, parts[h]])
    for number in range(limits):
        linear = [random.integers(0, 60, size) for size in sizes]
        low, high = sum(int(t.min()) for t in linear), sum(int(t.max()) for t in linear)
        builder.add_resource(
            f"r{number}", counted=True, limit=float(round(low + random.uniform(0.1, 0.6) * (high - low)))
        )
        for g, costs in enumerate(linear):
            builder.add_linear(f"r{number}", g, costs)
            if number and g:
                builder.add_pair(f"r{number}", g - 1, g, random.integers(0, 12, (sizes[g - 1], sizes[g])))
    for g in range(1, groups):
        if forbidden:
            builder.forbid(g - 1, g, random.random((sizes[g - 1], sizes[g])) < forbidden)
    return builder.build("loss")


@pytest.fixture(scope="session")
def dense_problem() -> Callable[..., Problem]:
    return make_dense_problem


IMAGE = (8, 6, 6)
MENU = tuple(Variant.parse(text) for text in ("float32", "int8", "int4", "binary", "apb:kept=0.02"))
LOW_MENU = tuple(Variant.parse(text) for text in ("float32", "int8", "int4@u4", "binary@u1", "apb@u4:kept=0.02"))


@dataclass(frozen=True)
class Case:
    """A network with a menu and profiles of all that a planner can ask for."""

    network: Network
    menu: Mapping[str, Sequence[Variant]]
    loss: LossProfile
    device: DeviceProfile
    threads: int = 2
    batch: int = 3


def make_network(seed: int, nodes: int, layers: int) -> Network:
    """Operations drawn at random over values of one shape, many of them read several times, some of them outputs."""
    random = np.random.default_rng(seed)
    found = [Node("input", Input(), (), IMAGE)]
    drawn = 0

    def value() -> str:
        images = [node.name for node in found if node.shape == IMAGE]
        recent = images[-4:] if random.random() < 0.7 else images
        return recent[int(random.integers(len(recent)))]

    for number in range(nodes):
        name, kind = f"n{number}", int(random.integers(9))
        if drawn < layers and (kind < 4 or nodes - number <= layers - drawn):
            drawn += 1
            residual = (value(),) if random.random() < 0.3 else ()
            conv = Conv2d((3, 3), padding=(1, 1, 1, 1), groups=int(random.choice([1, 8])), activation=RELU)
            found.append(Node(name, conv, (value(), *residual), IMAGE))
        elif kind == 5:
            found.append(Node(f"{name} wide", Concat(), (value(), value()), (16, 6, 6)))
            found.append(Node(name, Slice(((0, 16, 2), (0, 6, 1), (0, 6, 1))), (f"{name} wide",), IMAGE))
        elif kind == 6:
            found.append(Node(name, MaxPool((3, 3), (1, 1), (1, 1, 1, 1)), (value(),), IMAGE))
        elif kind == 7:
            op = Softmax() if random.random() < 0.4 else Activate(Activation("silu"))
            found.append(Node(name, op, (value(),), IMAGE))
        elif kind == 8:
            found.append(Node(name, ScaleShift(RELU), (value(),), IMAGE))
        else:
            found.append(Node(name, Add(RELU), (value(), value()), IMAGE))
    found.append(Node("mean", Mean(), (found[-1].name,), (8,)))
    found.append(Node("classifier", Linear(), ("mean",), (10,)))
    outputs = ["classifier"] + ([found[len(found) // 2].name] if random.random() < 0.3 else [])
    return Network(tuple(found), tuple(outputs))


def make_case(seed: int, *, nodes: int = 9, layers: int = 4, low: bool = False) -> Case:
    """A random network, a menu of some variants for each layer (`low`: with activations below 8 bits among them), and
    random profiles, some losses negative."""
    random = np.random.default_rng(seed)
    network = make_network(seed, nodes, layers)
    menu = {}
    for node in network.layers:
        allowed = [v for v in (LOW_MENU if low else MENU) if supports_format(network.weight_shape(node), v.activation)]
        count = int(random.integers(2, len(allowed) + 1)) if random.random() < 0.5 else len(allowed)
        picked = sorted(random.choice(len(allowed), count, replace=False).tolist())
        menu[node.name] = tuple(allowed[i] for i in picked)
    increases = {
        (name, variant): random.normal(0.3 * (1 - variant.encoding.startswith(("float", "int8"))), 0.1, 4).astype(
            np.float32
        )
        for name, allowed in menu.items()
        for variant in allowed
    }
    loss = LossProfile("kl", {**dict.fromkeys(HASHES, "0"), "network": network.content_hash}, increases)
    entries = {}
    for key in all_keys(network, menu, 2, 3):
        median = 1e-5 * (0.2 + (zlib.crc32(f"{seed} {key}".encode()) % 1000) / 1000)
        entries[key] = Latency(median, 0.9 * median, 1.2 * median, 50)
    fingerprint = Fingerprint("test", (), "portable", 1, "1")
    return Case(network, menu, loss, DeviceProfile(fingerprint, Latency(1.0, 1.0, 1.0, 1), entries))


def with_pairs(case: Case, seed: int) -> Case:
    """The case with losses of pairs of choices, as a Gram matrix, and a link that saturates."""
    random = np.random.default_rng(seed)
    choices = case.loss.choices
    features = random.normal(0, 0.3, (len(choices), 6)) * np.array([[v.encoding != "float32"] for _, v in choices])
    gram = features @ features.T
    increases = {
        choice: np.full(4, gram[number, number], np.float32) for number, choice in enumerate(case.loss.increases)
    }
    apart = np.array([[a != b for b, _ in choices] for a, _ in choices])
    pairs = np.where(apart, gram + gram.T, 0.0)
    loss = replace(case.loss, increases=increases, pairs=pairs, semidefinite=True, link=Link(0.9, 1.1, 3.0))
    return replace(case, loss=loss)


@pytest.fixture(scope="session")
def paired() -> Callable[[Case, int], Case]:
    return with_pairs


@pytest.fixture(scope="session")
def random_case() -> Callable[..., Case]:
    return make_case
