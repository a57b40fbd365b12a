"""The whole job in order: load, measure, plan, carry out, measure again, and say what was met."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from bitplan.atomic_file import write_atomically
from bitplan.config import Config, save_resolved
from bitplan.encodings import default_menu
from bitplan.errors import BitplanError, InfeasibleError, UsageError
from bitplan.finetuning import check_finetune, finetuned, training_images
from bitplan.kernels.artifact import artifact_bytes
from bitplan.max_drop import loosest_within_drop
from bitplan.measured import CarriedOut, tell_idle_options
from bitplan.network import Network
from bitplan.network_file import network_to_json
from bitplan.optimizer.plan import plan, uniform
from bitplan.policies.menu import menu_for, variants_of
from bitplan.policies.policy import Policy
from bitplan.policies.policy_file import write_policy
from bitplan.polishing import check_polish, polished
from bitplan.profiles.device import DeviceProfile
from bitplan.profiles.loss import LossProfile
from bitplan.profiles.metrics import is_classifier
from bitplan.progress import Reporter
from bitplan.recovery_journals import forget_recovery
from bitplan.result import MET, MISSED, PLANNED, Outcome, Result, targets_json
from bitplan.stages import Stages, stages_of
from bitplan.targets import Targets, format_bytes
from bitplan.trained import Trained, is_example
from bitplan.variant import FLOAT32, Variant

ARTIFACT, POLICY, NETWORK, CONFIG, RESULT, LOAD, DEVICE, LOSS = (
    "network.bitplan",
    "policy.json",
    "network.json",
    "optimize.yaml",
    "result.json",
    "LOAD.md",
    "device.arrow",
    "loss.arrow",
)
EXAMPLE_BYTES, EXAMPLE_LATENCY = 0.4, 0.8
"""The example's targets where none are given: shares of uniform int8's bytes and milliseconds."""
FASTEST_MARGIN = 1.05
"""How far above the fastest possible plan the example's latency target stays at least."""
REPLAN_MARGIN = 0.99
FITTING, NOTHING = "fitting", "none"
"""Words of `compare` that are no variants."""


@dataclass(frozen=True)
class Job:
    """Everything that planning and carrying out need, loaded and measured."""

    config: Config
    stages: Stages
    trained: Trained
    device: DeviceProfile
    loss: LossProfile
    targets: Targets
    reporter: Reporter
    tried: list[Policy] = field(default_factory=list)
    """The policies that were carried out."""

    def plan(self, targets: Targets) -> Policy:
        """The best policy under `targets`. Raises InfeasibleError with what can be reached instead."""
        with self.reporter.stage("solving the integer program", at_most=self.config.time_limit):
            policy = plan(
                self.trained.network,
                self.loss,
                self.device,
                targets,
                self.trained.menu,
                threads=self.config.threads,
                batch=self.config.batch,
                time_limit=self.config.time_limit,
                seed=self.config.seed,
            )
        certificate = policy.certificate
        gap = "no bound" if certificate.gap is None else f"gap {100 * certificate.gap:.3g} %"
        self.reporter.say(
            f"{certificate.status} ({gap}) by {certificate.solver}: {format_bytes(policy.predicted['file_bytes'] or 0)}, "
            f"{policy.predicted['latency_ms']:.3f} ms, loss {policy.predicted['loss']:.4g} ({self.loss.scale})"
        )
        if targets != self.targets:  # a correction for what was measured: the certificate is for these limits
            policy = replace(policy, settings={**policy.settings, "solved_for": targets_json(targets)})
        return replace(policy, targets=self.targets)

    def polished(self, policy: Policy, targets: Targets) -> Policy:
        """The policy after `--polish`, within `targets`."""
        if not self.config.polish:
            return policy
        return polished(self.trained, policy, self.loss, self.device, targets, self.config, self.reporter)

    def carry_out(self, policy: Policy, name: str = "our plan") -> CarriedOut:
        self.tried.append(policy)
        return self.stages.carry_out(self.trained, policy, self.config, self.reporter, self.device, name)

    def uniform(self, variant: Variant) -> Policy:
        """The uniform policy of a variant; with predictions where the variant is on the menu that was profiled."""
        network, menu = self.trained.network, self.trained.menu
        threads, batch = self.config.threads, self.config.batch
        policy = uniform(network, variant, menu, self.loss, self.device, threads=threads, batch=batch)
        if policy is None:
            every = menu_for(network, encodings=[str(variant), "default"])
            policy = uniform(network, variant, every, threads=threads, batch=batch)
        if policy is None:
            raise UsageError(f"no layer of this network can be {variant}; compare with another encoding")
        return policy


def optimise(config: Config, reporter: Reporter, *, dry_run: bool = False) -> Result:
    """Runs the main job and leaves its files in `config.output`; with `dry_run` it stops at the policy file.

    Raises InfeasibleError where no policy meets the limits, and other BitplanErrors for what the user can mend."""
    check_output(config.output)
    named_for_comparison(config)  # a wrong name is found now, not behind the work
    if config.targets.max_drop is not None and dry_run:
        raise UsageError("--max-drop is kept by measuring, which --dry-run leaves out; drop one of them")
    check_polish(config, inferred_objective(config.targets))
    check_finetune(config)
    tell_idle_options(config, reporter)
    stages = stages_of(config)
    trained = stages.load(config, reporter)
    if config.finetune:
        training_images(trained, config, reporter)  # what is wrong with them is found now
        if config.targets.max_drop is not None and inferred_objective(config.targets).objective != "loss":
            reporter.say(
                "--max-drop chooses the plan by what recovery alone loses; what training wins back comes on top"
            )
    if config.targets.max_drop is not None and not (config.metric or is_classifier(stages.outputs(trained))):
        raise UsageError("--max-drop: this network is no classifier; say with --metric how good its outputs are")
    device = stages.device_profile(trained, config, reporter)
    loss = stages.loss_profile(trained, config, reporter)
    if not config.hybrid:  # those of a module's layers are no profiles to plan from without it
        device.save(config.output / DEVICE)
        loss.save(config.output / LOSS)
    targets = inferred_objective(config.targets)
    job = Job(config, stages, trained, device, loss, targets, reporter)
    if is_example(config) and targets == Targets():
        eight_bit = job.uniform(Variant("int8"))
        job = replace(job, targets=example_targets(trained.network, eight_bit, job.plan, reporter))
    if dry_run:
        policy = job.polished(job.plan(job.targets), job.targets)
        return write(config, trained.network, Result(PLANNED, job.targets, policy, trained.network), None)
    if job.targets.max_drop is not None and job.targets.objective != "loss":
        best = loosest_within_drop(
            lambda limit: plan_and_measure(job, tighter_loss(job.targets, limit)), job.targets.max_drop, reporter
        )
    else:
        best = plan_and_measure(job, job.targets)
    result, artifact = judged_and_trained(job.targets, trained, best, config, reporter, device)
    comparison = compare(job)  # behind the writing: the plan is kept whatever happens here
    if config.finetune:
        for policy in job.tried:  # those that were not trained, too
            forget_recovery(trained, policy, config)
    if not comparison:
        return result
    return write(config, trained.network, replace(result, comparison=[*comparison, *result.comparison]), artifact)


def judged_and_trained(
    targets: Targets,
    trained: Trained,
    carried: CarriedOut,
    config: Config,
    reporter: Reporter,
    device: DeviceProfile | None,
) -> tuple[Result, bytes]:
    """Judges and writes what was carried out; with `--finetune`, trains it and does so again with what came of that."""
    result = write(config, trained.network, judge(targets, trained.network, carried), carried.artifact)
    if not config.finetune:
        return result, carried.artifact
    found = finetuned(trained, carried, config, reporter, device)  # behind the writing, for it may take hours
    reporter.show(found.table())
    result = judge(targets, trained.network, found.carried)
    result = replace(result, comparison=[carried.outcome], finetuning=found.stages)
    return write(config, trained.network, result, found.carried.artifact), found.carried.artifact


def inferred_objective(targets: Targets) -> Targets:
    """`--max-drop` alone asks for the cheapest network that stays within it: the fastest under a byte budget, the
    smallest otherwise. With both a latency and a byte limit, loss stays the objective and the drop is checked."""
    if targets.max_drop is None or targets.objective != "loss" or (targets.latency and targets.bytes):
        return targets
    return replace(targets, objective="latency" if targets.bytes else "bytes")


def example_targets(
    network: Network, eight_bit: Policy, planned: Callable[[Targets], Policy], reporter: Reporter
) -> Targets:
    """Targets that bind on the embedded example: 40 % of uniform int8's bytes, and 80 % of its milliseconds or, where
    the kernels are not that fast, a little above the fastest plan of that size, which `planned` finds."""
    size = int(EXAMPLE_BYTES * artifact_bytes(network, eight_bit.variants))
    eight_bit_ms = eight_bit.predicted.get("latency_ms")
    if not eight_bit_ms:
        reporter.say(f"no targets were given: {format_bytes(size)} (40 % of uniform int8)")
        return Targets(bytes=size)
    fastest_ms = planned(Targets(bytes=size, objective="latency")).predicted["latency_ms"] or 0
    wanted_ms = max(EXAMPLE_LATENCY * eight_bit_ms, FASTEST_MARGIN * fastest_ms)
    reporter.say(
        f"no targets were given: {format_bytes(size)} (40 % of uniform int8) and {wanted_ms:.3f} ms "
        f"({100 * wanted_ms / eight_bit_ms:.0f} % of uniform int8)"
    )
    return Targets(latency=wanted_ms * 1e-3, bytes=size)


def tighter_loss(targets: Targets, limit: float | None) -> Targets:
    """The targets with the loss limited to `limit` too."""
    limits = [value for value in (targets.loss, limit) if value is not None]
    return replace(targets, loss=min(limits, default=None))


def plan_and_measure(job: Job, targets: Targets) -> CarriedOut:
    """Plans, carries out and times; where the milliseconds were missed, plans again for the speed that was seen. What is
    chosen in the end is polished, once, within the limits that it was planned under."""
    limit = targets.latency
    planned_limit = limit
    best: CarriedOut | None = None
    chosen_under = targets
    for _ in range(job.config.rounds + 1):
        try:
            limits = replace(targets, latency=planned_limit)
            carried = job.carry_out(job.plan(limits))
        except InfeasibleError:
            if best is None:
                raise
            job.reporter.warn("no policy is predicted to make up for the measured difference")
            break
        measured, predicted = carried.outcome.latency, carried.outcome.predicted_latency_ms
        if (
            best is None
            or best.outcome.latency is None
            or measured is None
            or measured.median < best.outcome.latency.median
        ):
            best, chosen_under = carried, limits
        if limit is None or planned_limit is None or measured is None or measured.median <= limit * 1e3:
            break
        job.reporter.warn(f"measured {measured.median:.3f} ms, predicted {predicted:.3f} ms: the target was missed")
        planned_limit *= REPLAN_MARGIN * limit * 1e3 / measured.median
    assert best is not None
    return polish_and_measure(job, best, chosen_under)


def polish_and_measure(job: Job, carried: CarriedOut, limits: Targets) -> CarriedOut:
    """What comes of polishing a policy that was carried out, carried out again; the former where that misses the latency
    target and the former does not."""
    policy = job.polished(carried.policy, limits)
    if policy.variants == carried.policy.variants:
        return replace(carried, policy=policy)
    found = job.carry_out(policy)
    if latency_missed(job.targets, found) and not latency_missed(job.targets, carried):
        job.reporter.warn("the polished policy misses the latency target when measured; it is left out")
        return carried
    return found


def latency_missed(targets: Targets, carried: CarriedOut) -> bool:
    """Whether a latency target is missed as measured."""
    latency = carried.outcome.latency
    return bool(targets.latency and latency and latency.median > targets.latency * 1e3)


def judge(targets: Targets, network: Network, carried: CarriedOut) -> Result:
    """Compares what was measured with what was asked."""
    outcome, misses = carried.outcome, []
    if latency_missed(targets, carried):
        assert targets.latency and outcome.latency
        misses.append(f"latency {outcome.latency.median:.3f} ms > {targets.latency * 1e3:.3f} ms")
    if targets.bytes and outcome.file_bytes > targets.bytes:
        misses.append(f"file {outcome.file_bytes} bytes > {targets.bytes}")
    if targets.memory and carried.resident_bytes > targets.memory:
        misses.append(f"memory {carried.resident_bytes} bytes > {targets.memory}")
    drop = outcome.evaluation.drop if outcome.evaluation else None
    if targets.max_drop is not None and (drop is None or drop > targets.max_drop):
        found = "not measured" if drop is None else f"{100 * drop:.2f} points"
        misses.append(f"drop {found} > {100 * targets.max_drop:.2f} points")
    return Result(
        MISSED if misses else MET,
        targets,
        carried.policy,
        network,
        outcome,
        carried.resident_bytes,
        misses,
    )


def compare(job: Job) -> list[Outcome]:
    """Uniform policies carried out beside ours, as `compare` names them."""
    outcomes = []
    for variant in compared_variants(job):
        name = "full precision" if variant == FLOAT32 else f"uniform {variant}"
        job.reporter.say(f"for comparison: {name}")
        outcomes.append(job.carry_out(job.uniform(variant), name).outcome)
    return outcomes


def compared_variants(job: Job) -> list[Variant]:
    """What `compare` names; `fitting` stands for every uniform policy on the menu that is predicted to meet the byte
    and the latency limit, `none` for nothing."""
    wanted = named_for_comparison(job.config)
    if FITTING in job.config.compare:
        offered = (variant for variants in job.trained.menu.values() for variant in variants)
        wanted += [variant for variant in dict.fromkeys([*default_menu(), *offered]) if _fits(job, variant)]
    return list(dict.fromkeys(wanted))


def named_for_comparison(config: Config) -> list[Variant]:
    """The variants that `compare` names one by one. Raises UsageError for an unknown name."""
    names = [name for name in config.compare if name not in (FITTING, NOTHING)]
    return list(variants_of(names)) if names else []


def _fits(job: Job, variant: Variant) -> bool:
    predicted, limits = job.uniform(variant).predicted, job.targets
    size, latency = predicted.get("file_bytes"), predicted.get("latency_ms")
    if size is None or latency is None:
        return False
    return size <= (limits.bytes or size) and (limits.latency is None or latency <= limits.latency * 1e3)


def check_output(folder: Path) -> None:
    """Makes the output folder and proves that it can be written, before anything long begins."""
    try:
        probe = folder / ".bitplan-probe"
        write_atomically(probe, b"")
        probe.unlink()
    except OSError as error:
        raise BitplanError(
            f"the output folder {folder} cannot be written: {error.strerror}; choose another with -o"
        ) from None


def write(config: Config, network: Network, result: Result, artifact: bytes | None) -> Result:
    """Leaves artifact, policy, network, resolved configuration and result in the output folder."""
    folder = config.output
    if artifact is not None:  # first: a policy must never lie beside the artifact of another one
        write_atomically(folder / ARTIFACT, artifact)
        result = replace(result, artifact_path=folder / ARTIFACT)
    write_policy(folder / POLICY, result.policy)
    write_atomically(folder / NETWORK, network_to_json(network).encode())
    save_resolved(folder / CONFIG, config)
    if text := stages_of(config).note(config):
        write_atomically(folder / LOAD, text.encode())
    else:  # that of an earlier hybrid run would pass for this one's
        (folder / LOAD).unlink(missing_ok=True)
    result = replace(result, policy_path=folder / POLICY)
    write_atomically(folder / RESULT, json.dumps(result.to_json(), indent=1).encode())
    return result
