"""Carries a policy out and measures what came of it: bytes, milliseconds, loss and accuracy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from bitplan.config import COMMAND_LINE, Config
from bitplan.data import Dataset
from bitplan.errors import UsageError
from bitplan.evaluate import Metric, Outputs, evaluate, outputs_of, runtime_run
from bitplan.kernels.artifact import pack_artifact
from bitplan.network import Network
from bitplan.optimizer.predict import predict
from bitplan.policies.policy import Policy
from bitplan.policies.policy_file import policy_hash
from bitplan.profiles.device import DeviceProfile
from bitplan.profiles.measure_policy import START_UP, Expect, TimedArtifact, measure_policy
from bitplan.progress import Reporter
from bitplan.progress.passes import in_passes
from bitplan.recovery_journals import journal_path, recovery_journal
from bitplan.recovery_names import LAYER_STEPS, RECONSTRUCT, TUNE, Gain
from bitplan.result import MeasuredLatency, Outcome
from bitplan.trained import Trained
from bitplan.user_code import import_function
from bitplan.variant import FLOAT32

if TYPE_CHECKING:
    from bitplan.policies.realise import Realisation, Recovered, Watch
    from bitplan.policies.realise.warm import WarmStart

TIMINGS = 3
BUSY = 1.15
"""An artifact is timed again, up to TIMINGS times, while the anchor is slower than in the profile by this factor."""


class Tested(Protocol):
    """A trained subject with test images and the full-precision outputs on them."""

    @property
    def data(self) -> Dataset: ...

    @property
    def test_reference(self) -> Outputs: ...


@dataclass(frozen=True)
class CarriedOut:
    """A policy, its artifact, and its outcome as measured; resident bytes are packed weights and arena. `realisation`
    is what recovery made of a whole network, for training to start from."""

    policy: Policy
    artifact: bytes
    outcome: Outcome
    resident_bytes: int
    realisation: Realisation | None = None


def recovered(
    trained: Trained,
    policy: Policy,
    config: Config,
    reporter: Reporter,
    *,
    warm: WarmStart | None = None,
    watch: Watch | None = None,
) -> Recovered:
    """Realises the policy on the calibration images, going on where an interrupted run was, and says what rounding and
    each step of recovery came to. `warm`: a trained network to begin with in the place of full precision; `watch`: see `recover`."""
    from bitplan.policies.realise import recover

    steps, images = config.recovery_steps, trained.data.calibration_x
    path = journal_path(trained, policy, config, warm)
    with (
        reporter.stage("carrying the policy out") as report,
        recovery_journal(path, keep=bool(config.finetune)) as journal,
    ):
        found = recover(
            trained.network,
            trained.weights,
            images,
            policy.variants,
            steps,
            method=config.ranges,
            tune_epochs=config.tune_epochs,
            warm=warm,
            records=journal,
            progress=in_passes(report, 1 + len(steps) + (RECONSTRUCT in steps)),
            watch=watch,
        )
    if found.gains:
        losses = ", ".join(f"{g.step} {g.held_back_loss:.4g}{'' if g.kept else ' (left out)'}" for g in found.gains)
        reporter.say(f"loss on held-back calibration images, outputs softened: {losses}")
    elif left := [step for step in steps if step not in LAYER_STEPS and set(policy.variants.values()) != {FLOAT32}]:
        reporter.warn(
            f"{len(images)} calibration images are too few to hold any back: {', '.join(left)} left out; give more of them"
        )
    return found


def tell_idle_options(config: Config, reporter: Reporter) -> None:
    """Warns of an option of recovery that was given although no step uses it."""
    if TUNE not in config.recovery_steps and config.sources.get("tune_epochs") == COMMAND_LINE:
        reporter.warn(f"--tune-epochs changes nothing: recovery has no step {TUNE}; --recovery strong has it")


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


def carry_out(
    trained: Trained,
    policy: Policy,
    config: Config,
    reporter: Reporter,
    device: DeviceProfile | None,
    name: str = "our plan",
) -> CarriedOut:
    """Realises, packs, times in a fresh process, and evaluates on the test images with the runtime."""
    found = recovered(trained, policy, config, reporter)
    artifact = packed(trained, policy, found.realisation, config)
    carried = measured(trained, policy, artifact, config, reporter, device, name, found.gains)
    return replace(carried, realisation=found.realisation)


def measured(
    trained: Trained,
    policy: Policy,
    artifact: bytes,
    config: Config,
    reporter: Reporter,
    device: DeviceProfile | None,
    name: str = "our plan",
    recovery: Sequence[Gain] = (),
) -> CarriedOut:
    """Times an artifact in a fresh process, and evaluates it on the test images with the runtime."""
    from bitplan.kernels import Runtime

    latency = time_artifact(artifact, trained.one_image(config.batch), config, device, reporter)
    runtime = Runtime.from_bytes(artifact, threads=config.threads)
    trained.refer(reporter)
    with reporter.stage("evaluating on the test images") as report:
        outputs = outputs_of(runtime_run(runtime), trained.data.test_x, config.batch, report)
    resident = runtime.weight_bytes + runtime.arena_bytes * config.batch
    return judged(trained, trained.network, policy, artifact, latency, outputs, resident, config, name, recovery)


def judged(
    trained: Tested,
    network: Network,
    policy: Policy,
    artifact: bytes,
    latency: MeasuredLatency,
    outputs: Outputs,
    resident_bytes: int,
    config: Config,
    name: str,
    recovery: Sequence[Gain] = (),
) -> CarriedOut:
    """What came of a policy, by its outputs on the test images, which have the names and shapes of `network`'s."""
    evaluation = evaluate(
        network,
        trained.test_reference,
        outputs,
        trained.data.test_y,
        loss_metric=config.loss_metric,
        metric=metric_of(config),
    )
    predicted = policy.predicted.get("latency_ms")
    outcome = Outcome(name, len(artifact), predicted, latency, evaluation, recovery)
    return CarriedOut(policy, artifact, outcome, resident_bytes)


def with_predictions(policy: Policy, network: Network, device: DeviceProfile | None, config: Config) -> Policy:
    """The policy with its bytes predicted anew, and its latency where the device profile knows its steps; the loss
    stays what the policy says. What was estimated of another machine is dropped."""
    threads, batch = config.threads, config.batch
    try:
        totals = predict(network, policy.variants, None, device, threads=threads, batch=batch, kernels=policy.kernels)
    except UsageError:
        totals = predict(network, policy.variants, threads=threads, batch=batch)
    settings = {name: value for name, value in policy.settings.items() if name != "estimates"}
    return replace(policy, settings=settings, predicted={**totals, "loss": policy.predicted.get("loss")})


def metric_of(config: Config) -> Metric | None:
    """The user's own metric, imported."""
    return import_function(config.metric, "metric") if config.metric else None


def time_artifact(
    artifact: bytes, inputs: Mapping[str, Any], config: Config, device: DeviceProfile | None, reporter: Reporter
) -> MeasuredLatency:
    """The artifact's latency in a fresh process, and how much slower the machine was than `device` knows it."""
    return calmest_of(
        lambda expect: measure_policy(artifact, inputs, threads=config.threads, expect=expect),
        "the artifact",
        device,
        reporter,
    )


def calmest_of(
    time: Callable[[Expect], TimedArtifact], what: str, device: DeviceProfile | None, reporter: Reporter
) -> MeasuredLatency:
    """One of up to TIMINGS timings: a machine that is busy with something else (its anchor is slow too) is given another
    chance, and the calmest counts."""
    with reporter.stage(f"timing {what} in a fresh process", at_most=START_UP) as report:
        timings = []
        for _ in range(TIMINGS):
            measured = time(report.takes)
            timings.append((device.drift(measured.anchor) if device else 1.0, measured))
            if timings[-1][0] <= BUSY:
                break
        drift, calmest = min(timings, key=lambda timing: timing[0])
    if drift > BUSY:
        reporter.warn(f"the machine is busy: it ran {drift:.2f} times slower than when it was profiled")
    latency = calmest.latency
    return MeasuredLatency(
        latency.median * 1e3, latency.low * 1e3, latency.high * 1e3, drift, calmest.all_runs.median * 1e3
    )
