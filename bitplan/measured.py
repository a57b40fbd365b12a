"""Carries a policy out and measures what came of it: bytes, milliseconds, loss and accuracy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from bitplan.config import Config
from bitplan.errors import UsageError
from bitplan.evaluate import Metric, evaluate, outputs_of, runtime_run
from bitplan.kernels.artifact import pack_artifact
from bitplan.network import Network
from bitplan.optimizer.predict import predict
from bitplan.policies.policy import Policy
from bitplan.policies.policy_file import policy_hash
from bitplan.profiles.device import DeviceProfile
from bitplan.profiles.measure_policy import TimedArtifact, measure_policy
from bitplan.progress import Reporter
from bitplan.result import MeasuredLatency, Outcome
from bitplan.trained import Trained
from bitplan.user_code import import_function

if TYPE_CHECKING:
    from bitplan.policies.realise import Realisation

TIMINGS = 3
BUSY = 1.15
"""An artifact is timed again, up to TIMINGS times, while the anchor is slower than in the profile by this factor."""


@dataclass(frozen=True)
class CarriedOut:
    """A policy, its artifact, and its outcome as measured; resident bytes are packed weights and arena."""

    policy: Policy
    artifact: bytes
    outcome: Outcome
    resident_bytes: int


def recovered(trained: Trained, policy: Policy, reporter: Reporter) -> Realisation:
    """Realises the policy on the calibration images."""
    from bitplan.policies.realise import realise

    with reporter.stage("carrying the policy out") as report:
        return realise(trained.network, trained.weights, trained.data.calibration_x, policy.variants, progress=report)


def packed(trained: Trained, policy: Policy, carried: Realisation, config: Config) -> bytes:
    """The artifact of a realised policy."""
    return pack_artifact(
        trained.network,
        trained.weights,
        carried.layers,
        carried.ranges,
        kernels=policy.kernels,
        policy_hash=policy_hash(policy),
        planned_batch=config.batch,
    )


def pack(trained: Trained, policy: Policy, config: Config, reporter: Reporter) -> bytes:
    """Realises the policy on the calibration images and packs the artifact."""
    return packed(trained, policy, recovered(trained, policy, reporter), config)


def carry_out(
    trained: Trained,
    policy: Policy,
    config: Config,
    reporter: Reporter,
    device: DeviceProfile | None,
    name: str = "our plan",
) -> CarriedOut:
    """Realises, packs, times in a fresh process, and evaluates on the test images with the runtime."""
    return measured(trained, policy, pack(trained, policy, config, reporter), config, reporter, device, name)


def measured(
    trained: Trained,
    policy: Policy,
    artifact: bytes,
    config: Config,
    reporter: Reporter,
    device: DeviceProfile | None,
    name: str = "our plan",
) -> CarriedOut:
    """Times an artifact in a fresh process, and evaluates it on the test images with the runtime."""
    from bitplan.kernels import Runtime

    latency = time_artifact(artifact, trained.one_image(config.batch), config, device, reporter)
    runtime = Runtime.from_bytes(artifact, threads=config.threads)
    with reporter.stage("evaluating on the test images") as report:
        outputs = outputs_of(runtime_run(runtime), trained.data.test_x, config.batch, report)
        evaluation = evaluate(
            trained.network,
            trained.test_reference,
            outputs,
            trained.data.test_y,
            loss_metric=config.loss_metric,
            metric=metric_of(config),
        )
    predicted = policy.predicted.get("latency_ms")
    outcome = Outcome(name, len(artifact), predicted, latency, evaluation)
    return CarriedOut(policy, artifact, outcome, runtime.weight_bytes + runtime.arena_bytes * config.batch)


def with_predictions(policy: Policy, network: Network, device: DeviceProfile | None, config: Config) -> Policy:
    """The policy with its bytes predicted anew, and its latency where the device profile knows its steps; the loss
    stays what the policy says."""
    threads, batch = config.threads, config.batch
    try:
        totals = predict(network, policy.variants, None, device, threads=threads, batch=batch, kernels=policy.kernels)
    except UsageError:
        totals = predict(network, policy.variants, threads=threads, batch=batch)
    return replace(policy, predicted={**totals, "loss": policy.predicted.get("loss")})


def metric_of(config: Config) -> Metric | None:
    """The user's own metric, imported."""
    return import_function(config.metric, "metric") if config.metric else None


def time_artifact(
    artifact: bytes, inputs: Mapping[str, Any], config: Config, device: DeviceProfile | None, reporter: Reporter
) -> MeasuredLatency:
    """The artifact's latency in a fresh process, and how much slower the machine was than `device` knows it."""
    return calmest_of(
        lambda: measure_policy(artifact, inputs, threads=config.threads), "the artifact", device, reporter
    )


def calmest_of(
    time: Callable[[], TimedArtifact], what: str, device: DeviceProfile | None, reporter: Reporter
) -> MeasuredLatency:
    """One of up to TIMINGS timings: a machine that is busy with something else (its anchor is slow too) is given another
    chance, and the calmest counts."""
    with reporter.stage(f"timing {what} in a fresh process"):
        timings = []
        for _ in range(TIMINGS):
            measured = time()
            timings.append((device.drift(measured.anchor) if device else 1.0, measured))
            if timings[-1][0] <= BUSY:
                break
        drift, calmest = min(timings, key=lambda timing: timing[0])
    if drift > BUSY:
        reporter.say(f"[yellow]the machine is busy: it ran {drift:.2f} times slower than when it was profiled[/]")
    latency = calmest.latency
    return MeasuredLatency(
        latency.median * 1e3, latency.low * 1e3, latency.high * 1e3, drift, calmest.all_runs.median * 1e3
    )
