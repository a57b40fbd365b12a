"""Network, menu, profiles and targets as a Problem, and its choices back as variants.

Groups: one per layer (its variants) and one per value whose formats several decisions settle (value_formats.py).
Resources: bytes of the artifact, full-precision weights, loss (nats or whatever was profiled), latency (seconds) and,
where memory is a limit or the objective, one per execution step that can be the fullest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import floor, isinf
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bitplan.compute import supports_format
from bitplan.encodings import encoding_of
from bitplan.errors import UsageError
from bitplan.kernels.artifact import constant_bytes, layer_bytes
from bitplan.network import Network, Node
from bitplan.optimizer.builder import ProblemBuilder
from bitplan.optimizer.memory import add_memory
from bitplan.optimizer.problem import Choices, Problem
from bitplan.optimizer.value_formats import Decided, Kept, ValueFormats, ValueGroup, add_value_formats
from bitplan.profiles.quadratic import quadratic
from bitplan.profiles.steps import StepKey, StepKeys, all_keys
from bitplan.targets import Targets
from bitplan.variant import Variant

if TYPE_CHECKING:
    from bitplan.profiles.device import DeviceProfile
    from bitplan.profiles.loss import LossProfile

BYTES, LATENCY, LOSS, MEMORY, FULL_PRECISION = "bytes", "latency", "loss", "memory", "full_precision_weights"
"""The targets of resources, named as the fields of Targets."""

Menu = Mapping[str, Sequence[Variant]]
"""The variants allowed for every layer."""


@dataclass(frozen=True)
class Program:
    """The problem and what its groups stand for: layers first, in the order of `menu`, then values."""

    problem: Problem
    menu: Mapping[str, tuple[Variant, ...]]
    values: tuple[ValueGroup, ...]
    kept: Mapping[str, Decided]
    """How the formats of every value are decided, by the value's name."""

    def variants(self, choices: Choices) -> dict[str, Variant]:
        """The variant of every layer."""
        return {layer: allowed[i] for (layer, allowed), i in zip(self.menu.items(), choices, strict=False)}

    def choices(self, variants: Mapping[str, Variant]) -> Choices:
        """The choices of a policy, value formats included. Raises UsageError for a variant that is not on the menu."""
        found = []
        for layer, allowed in self.menu.items():
            if variants[layer] not in allowed:
                names = ", ".join(map(str, allowed))
                raise UsageError(f"layer {layer!r} may not be {variants[layer]}; its menu is {names}")
            found.append(allowed.index(variants[layer]))
        for value in self.values:
            found.append(value.option(found))
        return tuple(found)


def build_problem(
    network: Network,
    menu: Menu,
    targets: Targets,
    *,
    loss_profile: LossProfile | None = None,
    device_profile: DeviceProfile | None = None,
    threads: int = 1,
    batch: int = 1,
) -> Program:
    """The program of a network. Raises UsageError for a menu that does not fit the network, and for a target that
    needs a profile that is not there."""
    allowed = _validated(network, menu)
    _require_profiles(targets, loss_profile, device_profile)
    builder = ProblemBuilder()
    layers = {name: builder.add_group(name, [str(v) for v in variants]) for name, variants in allowed.items()}
    values = add_value_formats(builder, network, allowed, layers)
    _add_bytes(builder, network, allowed, targets)
    _add_full_precision(builder, network, allowed, targets)
    if loss_profile is not None:
        _add_loss(builder, allowed, loss_profile, targets)
    if device_profile is not None:
        builder.add_resource(LATENCY, unit="s", limit=targets.latency)
        _Latency(builder, network, allowed, layers, values, device_profile, threads, batch).add()
    if targets.memory is not None or targets.objective == MEMORY:
        add_memory(builder, network, allowed, layers, values, batch, targets.memory)
    return Program(builder.build(targets.objective), allowed, tuple(values.groups), values.kept)


def _validated(network: Network, menu: Menu) -> dict[str, tuple[Variant, ...]]:
    names = [node.name for node in network.layers]
    if unknown := sorted(set(menu) - set(names)):
        raise UsageError(f"the menu names {unknown[0]!r}, which is not a layer; layers are {', '.join(names)}")
    allowed = {}
    for node in network.layers:
        variants = tuple(dict.fromkeys(menu.get(node.name, ())))
        if not variants:
            raise UsageError(f"the menu of layer {node.name!r} is empty; allow it one variant at least")
        shape = network.weight_shape(node)
        for variant in variants:
            if not (encoding_of(variant).supports(shape) and supports_format(shape, variant.activation)):
                raise UsageError(f"layer {node.name!r} ({shape}) cannot be {variant}; take it off the layer's menu")
        allowed[node.name] = variants
    return allowed


def _require_profiles(targets: Targets, loss: LossProfile | None, device: DeviceProfile | None) -> None:
    if loss is None and (targets.loss is not None or targets.objective == LOSS):
        raise UsageError("loss is a target, but there is no loss profile; measure one with `optimize profile`")
    if device is None and (targets.latency is not None or targets.objective == LATENCY):
        raise UsageError("latency is a target, but there is no device profile; measure one with `optimize profile`")


def _add_loss(
    builder: ProblemBuilder, allowed: Mapping[str, tuple[Variant, ...]], profile: LossProfile, targets: Targets
) -> None:
    """The score (see profiles/quadratic.py); a limit on the loss is one on the score that stands for it."""
    limit = None if targets.loss is None else profile.link.score(targets.loss)
    builder.add_resource(LOSS, limit=None if limit is None or isinf(limit) else limit)
    matrix = quadratic(profile)
    numbers = [[profile.number(name, variant) for variant in variants] for name, variants in allowed.items()]
    for group, own in enumerate(numbers):
        builder.add_linear(LOSS, group, matrix[own, own])
    if profile.pairs is not None:
        for a, b in combinations(range(len(numbers)), 2):
            table = 2 * matrix[np.ix_(numbers[a], numbers[b])]
            if np.any(table):
                builder.add_pair(LOSS, a, b, table)


def _add_bytes(
    builder: ProblemBuilder, network: Network, allowed: Mapping[str, tuple[Variant, ...]], targets: Targets
) -> None:
    builder.add_resource(BYTES, unit="B", counted=True, limit=targets.bytes)
    builder.add_constant(BYTES, constant_bytes(network))
    for number, (name, variants) in enumerate(allowed.items()):
        node = network.by_name[name]
        builder.add_linear(BYTES, number, [layer_bytes(network, node, variant) for variant in variants])


def _add_full_precision(
    builder: ProblemBuilder, network: Network, allowed: Mapping[str, tuple[Variant, ...]], targets: Targets
) -> None:
    builder.add_resource(FULL_PRECISION, unit="weights", counted=True, limit=full_precision_limit(network, targets))
    for number, (name, variants) in enumerate(allowed.items()):
        shape = network.weight_shape(network.by_name[name])
        costs = [encoding_of(variant).full_precision_weights(shape, variant) for variant in variants]
        builder.add_linear(FULL_PRECISION, number, costs)


def full_precision_limit(network: Network, targets: Targets) -> int | None:
    """The largest number of full-precision weights: as given, or the fraction of all weights rounded down."""
    asked = targets.full_precision_weights
    if asked is None or asked >= 1:
        return None if asked is None else floor(asked)
    total = sum(network.weight_shape(node).count for node in network.layers)
    return floor(asked * total + 1e-9)


@dataclass(frozen=True)
class _Latency:
    """The latency of every step: by the layer's variant and by the formats of the node's own value, from which follows
    what a node without weights reads."""

    builder: ProblemBuilder
    network: Network
    allowed: Mapping[str, tuple[Variant, ...]]
    layers: Mapping[str, int]
    values: ValueFormats
    device: DeviceProfile
    threads: int
    batch: int

    def add(self) -> None:
        executed = all_keys(self.network, self.allowed, self.threads, self.batch)
        for node in self.network:
            kept = self.values.kept[node.name]
            if node.name in self.layers:
                variants = self.allowed[node.name]
                costs = [[self._layer(executed, node, v, formats) for formats in kept.formats] for v in variants]
                self._add(self.layers[node.name], kept, np.array(costs))
            else:
                seconds = [self._operation(executed, node, formats) for formats in kept.formats]
                self._add(None, kept, np.array([seconds]))

    def _add(self, group: int | None, kept: Decided, costs: NDArray[np.float64]) -> None:
        """Adds costs [options of the layer's group or 1, entries of `kept`]."""
        if group is None and kept.group is None:
            self.builder.add_constant(LATENCY, float(costs[0, 0]))
        elif kept.group is None:
            assert group is not None
            self.builder.add_linear(LATENCY, group, costs[:, 0])
        elif group is None:
            self.builder.add_linear(LATENCY, kept.group, costs[0])
        else:
            self.builder.add_pair(LATENCY, group, kept.group, costs)

    # Formats that no policy can bring about together have no measured steps; the forbidden pairs exclude them.

    def _layer(self, executed: frozenset[StepKey], node: Node, variant: Variant, formats: Kept) -> float:
        """Seconds of a layer under the fastest of its kernels."""
        keys = self._keys.layer(node, variant, formats).values()
        return min((self.device.latency(key).median for key in keys if key in executed), default=0.0)

    def _operation(self, executed: frozenset[StepKey], node: Node, formats: Kept) -> float:
        """Seconds of a node without weights and of the conversions behind it."""
        keys = self._keys.operation(node, formats).values()
        return sum(self.device.latency(key).median for key in keys if key in executed)

    @property
    def _keys(self) -> StepKeys:
        return StepKeys(self.network, self.threads, self.batch)
