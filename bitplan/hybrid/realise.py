"""Carries a hybrid policy out: encodes the leaves, packs them, and measures the module with drop-ins in place."""

from __future__ import annotations

from torch import nn

from bitplan.config import Config
from bitplan.encodings import EncodedLayer
from bitplan.errors import UsageError
from bitplan.hybrid.ranges import calibrate_inputs
from bitplan.hybrid.recover import leaf_inputs, recovered
from bitplan.hybrid.timing import time_module
from bitplan.hybrid.trained import HybridTrained
from bitplan.hybrid.twin import Twin, leaf_simulator
from bitplan.kernels.artifact import pack_artifact
from bitplan.kernels.layer_set import LayerSet
from bitplan.kernels.torch_modules import Conv2d, Linear
from bitplan.measured import CarriedOut, calmest_of, judged
from bitplan.network import Conv2d as ConvOperation
from bitplan.policies.policy import Policy
from bitplan.policies.policy_file import policy_hash
from bitplan.policies.realise.pipeline import check_variants, code_formats
from bitplan.policies.realise.steps import recoveries
from bitplan.profiles.device import DeviceProfile
from bitplan.progress import Reporter
from bitplan.recovery_names import LAYER_STEPS


def pack(trained: HybridTrained, policy: Policy, config: Config, reporter: Reporter) -> bytes:
    """Encodes the leaves in the order of their calls, each recovered on what it reads behind those before it, and packs
    the artifact. Steps on the whole network are left out: the module is not captured."""
    runner, leaves, variants = trained.runner, trained.leaves, policy.variants
    check_variants(trained.network, variants)
    images = trained.data.calibration_x
    if left_out := [step for step in config.recovery_steps if step not in LAYER_STEPS]:
        reporter.warn(f"left out of recovery: {', '.join(left_out)} (for captured networks; here layers stand alone)")
    encoded: dict[str, EncodedLayer] = {}
    twins: dict[nn.Module, nn.Module] = {}
    with reporter.stage("carrying the policy out") as report:
        report(0, len(leaves), "activation ranges")
        held = calibrate_inputs(runner, leaves, images, code_formats(variants.values()), config.ranges)
        images = images[: trained.loss_images(config.loss_size)]
        for done, leaf in enumerate(leaves):
            report(done, len(leaves), f"{leaf.name} as {variants[leaf.name]}")
            full = leaf_inputs(runner, leaf, images)
            with runner.swapped(twins):
                quantised = leaf_inputs(runner, leaf, images)
            layer = recovered(
                leaf, variants[leaf.name], held[leaf.name], full, quantised, recoveries(config.layer_recovery)
            )
            encoded[leaf.name] = layer
            twins[leaf.module] = Twin(leaf_simulator(leaf), layer, held[leaf.name])
    return pack_artifact(
        trained.network,
        trained.weights,
        encoded,
        {f"{name}.input": ranges for name, ranges in held.items()},
        kernels=policy.kernels,
        policy_hash=policy_hash(policy),
        planned_batch=config.batch,
    )


def carry_out(
    trained: HybridTrained,
    policy: Policy,
    config: Config,
    reporter: Reporter,
    device: DeviceProfile | None,
    name: str = "our plan",
) -> CarriedOut:
    """Packs, times the module with drop-ins in a fresh process, and evaluates it on the test images."""
    artifact = pack(trained, policy, config, reporter)
    example = trained.one_image(config.batch)
    latency = calmest_of(
        lambda expect: time_module(config, example, artifact=artifact, expect=expect),
        "the module with drop-ins",
        device,
        reporter,
    )
    layers = LayerSet(artifact, config.threads)
    trained.refer(reporter)
    with reporter.stage("evaluating on the test images") as report, trained.runner.swapped(drop_ins(trained, layers)):
        outputs = trained.runner.outputs(trained.data.test_x, report)
    return judged(
        trained, trained.outputs_network, policy, artifact, latency, outputs, layers.weight_bytes, config, name
    )


def drop_ins(trained: HybridTrained, layers: LayerSet) -> dict[nn.Module, nn.Module]:
    """By leaf, its drop-in. Raises UsageError where the set lacks one."""
    found: dict[nn.Module, nn.Module] = {}
    for leaf in trained.leaves:
        info = layers.layers.get(leaf.name)
        if info is None:
            raise UsageError(
                f"the artifact has no layer {leaf.name!r}; carry the policy out on the model it was made for"
            )
        found[leaf.module] = (Conv2d if isinstance(info.op, ConvOperation) else Linear)(layers, leaf.name)
    return found
