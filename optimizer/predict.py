"""What a policy will cost: predicted totals of a whole network, without any solver.

Latency sums the medians of the very steps that the program sums, with the fastest kernel for each layer; bytes are those
of the file; resident bytes are weights plus the planned arena.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import fsum
from typing import TYPE_CHECKING, Any

import numpy as np

from bitplan.compute import kernels_for
from bitplan.encodings import encoding_of
from bitplan.errors import UsageError
from bitplan.formats import derive_formats
from bitplan.kernels.arena import plan_arena
from bitplan.kernels.artifact import artifact_bytes, layer_bytes
from bitplan.network import Network
from bitplan.optimizer.memory import resident_weight_bytes
from bitplan.policies.policy import Certificate, LayerPolicy, Policy
from bitplan.profiles.quadratic import Matrix, predicted_loss, quadratic
from bitplan.profiles.steps import Kernels, policy_steps
from bitplan.targets import Targets
from bitplan.variant import Variant

if TYPE_CHECKING:
    from bitplan.profiles.device import DeviceProfile
    from bitplan.profiles.loss import LossProfile


@dataclass(frozen=True)
class Predictor:
    """What predictions rest on; without a profile the figures it would give are None."""

    network: Network
    loss_profile: LossProfile | None = None
    device_profile: DeviceProfile | None = None
    threads: int = 1
    batch: int = 1

    def __post_init__(self) -> None:
        """Raises UsageError for a loss profile of another network."""
        measured = None if self.loss_profile is None else self.loss_profile.hashes.get("network")
        if measured is not None and measured != self.network.content_hash:
            raise UsageError(
                f"the loss profile was measured on network {measured[:8]}, but this network is "
                f"{self.network.content_hash[:8]}; measure a profile of this one with `optimize profile`"
            )

    def loss_shares(self, variants: Mapping[str, Variant]) -> dict[str, float] | None:
        """By layer, its share of the predicted loss of the whole policy: in proportion to what it adds to the score, of
        each pair one half. They add up to `total_loss`; below zero where a layer makes up for others."""
        profile = self.loss_profile
        if profile is None:
            return None
        numbers = [profile.number(*choice) for choice in variants.items()]
        added = self.matrix[np.ix_(numbers, numbers)].sum(1)
        score = float(added.sum())
        loss = profile.link.loss(score)
        return {name: loss * float(own) / score if loss else 0.0 for name, own in zip(variants, added, strict=True)}

    def total_loss(self, variants: Mapping[str, Variant]) -> float | None:
        """The predicted loss of the whole policy: what single layers and pairs cost, through the profile's link."""
        profile = self.loss_profile
        return None if profile is None else predicted_loss(profile, self.matrix, variants)

    @property
    def stated(self) -> Mapping[str, Callable[[float], float]]:
        """By target, what an amount of the program's resource stands for in the target's unit, where that is another:
        the loss behind a score."""
        return {} if self.loss_profile is None else {"loss": self.loss_profile.link.loss}

    @cached_property
    def matrix(self) -> Matrix:
        """The matrix of the loss profile's scores."""
        assert self.loss_profile is not None
        return quadratic(self.loss_profile)

    def resident_bytes(self, variants: Mapping[str, Variant]) -> int:
        """Weights in memory plus the arena for the whole batch."""
        arena = plan_arena(self.network, derive_formats(self.network, variants))
        return resident_weight_bytes(self.network, variants) + arena.size * self.batch

    def full_precision_weights(self, variants: Mapping[str, Variant]) -> int:
        return sum(
            encoding_of(variants[node.name]).full_precision_weights(
                self.network.weight_shape(node), variants[node.name]
            )
            for node in self.network.layers
        )

    def kernels(self, variants: Mapping[str, Variant]) -> dict[str, str]:
        """The fastest compute kernel of every layer; without a device profile, the first that can run it."""
        if self.device_profile is None:
            return {node.name: kernels_for(variants[node.name])[0] for node in self.network.layers}
        return self.device_profile.fastest_kernels(self.network, variants, self.threads, self.batch)

    def step_seconds(self, variants: Mapping[str, Variant], kernels: Kernels) -> dict[str, float] | None:
        """The median latency of every executor step, by the step's name."""
        if self.device_profile is None:
            return None
        steps = policy_steps(self.network, variants, self.threads, self.batch, kernels)
        return {step: self.device_profile.latency(key).median for step, key in steps.items()}

    def estimates(self, variants: Mapping[str, Variant], kernels: Kernels) -> dict[str, Any]:
        """Under `estimates`, which of the policy's steps were not timed but estimated, their milliseconds together and
        their error bars together (as if all erred alike); empty where none was."""
        if self.device_profile is None:
            return {}
        steps = policy_steps(self.network, variants, self.threads, self.batch, kernels)
        found = {step: self.device_profile.latency(key) for step, key in steps.items()}
        found = {step: latency for step, latency in found.items() if latency.estimated}
        if not found:
            return {}
        seconds, bars = (fsum(getattr(f, name) for f in found.values()) for name in ("median", "error"))
        return {"estimates": {"steps": list(found), "latency_ms": 1e3 * seconds, "error_ms": 1e3 * bars}}

    def totals(self, variants: Mapping[str, Variant], kernels: Kernels | None = None) -> dict[str, float | int | None]:
        """The whole network's figures, named as in Policy.predicted, with the given kernels or the fastest ones."""
        self._require_complete(variants)
        seconds = self.step_seconds(variants, kernels or self.kernels(variants))
        return {
            "file_bytes": artifact_bytes(self.network, variants),
            "resident_bytes": self.resident_bytes(variants),
            "latency_ms": None if seconds is None else 1e3 * fsum(seconds.values()),
            "loss": self.total_loss(variants),
            "full_precision_weights": self.full_precision_weights(variants),
        }

    def policy(
        self,
        variants: Mapping[str, Variant],
        targets: Targets | None = None,
        certificate: Certificate | None = None,
        settings: Mapping[str, object] | None = None,
    ) -> Policy:
        """A Policy with the fastest kernels, and with every layer's and the network's predictions."""
        self._require_complete(variants)
        kernels = self.kernels(variants)
        totals = self.totals(variants, kernels)
        seconds = self.step_seconds(variants, kernels)
        shares = self.loss_shares(variants)
        layers = []
        for node in self.network.layers:
            variant, name = variants[node.name], node.name
            latency = None if seconds is None else 1e3 * seconds[name]
            size = layer_bytes(self.network, node, variant)
            share = None if shares is None else shares[name]
            layers.append(LayerPolicy(name, variant, size, latency, share, kernels[name]))
        hashes = dict(self.loss_profile.hashes) if self.loss_profile is not None else {}
        hashes["network"] = self.network.content_hash
        scale = {} if self.loss_profile is None else {"loss_scale": self.loss_profile.scale}
        estimates = self.estimates(variants, kernels)
        if self.device_profile is not None:
            hashes["device"] = self.device_profile.fingerprint.hash
        return Policy(
            tuple(layers),
            targets or Targets(),
            totals,
            certificate or Certificate(),
            hashes,
            {"threads": self.threads, "batch": self.batch, **scale, **estimates, **(settings or {})},
        )

    def _require_complete(self, variants: Mapping[str, Variant]) -> None:
        layers = [node.name for node in self.network.layers]
        if missing := [name for name in layers if name not in variants]:
            raise UsageError(f"the policy gives layer {missing[0]!r} no variant; every layer needs one")
        if unknown := sorted(set(variants) - set(layers)):
            raise UsageError(
                f"the policy names {unknown[0]!r}, which is not a layer of the network; take it out of the policy"
            )


def predict(
    network: Network,
    variants: Mapping[str, Variant],
    loss_profile: LossProfile | None = None,
    device_profile: DeviceProfile | None = None,
    *,
    threads: int = 1,
    batch: int = 1,
    kernels: Kernels | None = None,
) -> dict[str, float | int | None]:
    """Predicted totals of any policy: `file_bytes`, `resident_bytes`, `latency_ms`, `loss`,
    `full_precision_weights`; with the given kernels of layers, or the fastest ones. Raises UsageError where a layer or
    a measurement is missing."""
    return Predictor(network, loss_profile, device_profile, threads, batch).totals(variants, kernels)
