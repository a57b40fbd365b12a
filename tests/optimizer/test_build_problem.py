"""The program of a network: its totals are those that formats, artifact and arena give, for any policy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest

from bitplan.compute import KERNELS, kernels_for
from bitplan.errors import UsageError
from bitplan.formats import derive_formats
from bitplan.kernels.arena import peak_bytes
from bitplan.kernels.artifact import artifact_bytes
from bitplan.network import ScaleShift
from bitplan.optimizer.build_problem import Program, build_problem, full_precision_limit
from bitplan.optimizer.check import violations
from bitplan.optimizer.memory import resident_weight_bytes
from bitplan.optimizer.predict import Predictor, predict
from bitplan.profiles.steps import policy_steps
from bitplan.targets import Targets
from bitplan.variant import FLOAT32, Variant

MakeCase = Callable[..., Any]
LOOSE = Targets(memory=10**9)


def program_of(case: Any, targets: Targets = LOOSE) -> Program:
    return build_problem(
        case.network,
        case.menu,
        targets,
        loss_profile=case.loss,
        device_profile=case.device,
        threads=case.threads,
        batch=case.batch,
    )


def random_policy(case: Any, random: np.random.Generator) -> dict[str, Variant]:
    return {name: allowed[int(random.integers(len(allowed)))] for name, allowed in case.menu.items()}


def totals_of(program: Program, variants: dict[str, Variant]) -> dict[str, float]:
    """The largest total of each target, in its unit."""
    choices = program.choices(variants)
    found: dict[str, float] = {}
    for resource in program.problem.resources:
        total = resource.total(choices) * resource.resolution
        found[resource.target] = max(found.get(resource.target, -np.inf), total)
    return found


@pytest.mark.parametrize("seed", range(40))
def test_totals_equal_those_computed_without_the_program(random_case: MakeCase, seed: int) -> None:
    case = random_case(seed, nodes=12, layers=6, low=seed % 2 == 0)
    program, random = program_of(case), np.random.default_rng(seed)
    for _ in range(8):
        variants = random_policy(case, random)
        formats = derive_formats(case.network, variants)
        totals = totals_of(program, variants)
        assert violations(program.problem, program.choices(variants)) == []
        assert program.variants(program.choices(variants)) == variants
        assert totals["bytes"] == artifact_bytes(case.network, variants)
        assert totals["memory"] == resident_weight_bytes(case.network, variants) + case.batch * peak_bytes(
            case.network, formats
        )
        seconds = case.device.predict(case.network, variants, case.threads, case.batch)
        assert totals["latency"] == pytest.approx(seconds, rel=1e-8)
        loss = sum(max(case.loss.loss(name, variant), 0.0) for name, variant in variants.items())
        assert totals["loss"] == pytest.approx(loss, rel=1e-7, abs=1e-9)
        assert totals["full_precision_weights"] == sum(
            case.network.weight_shape(node).count
            if variants[node.name] == FLOAT32
            else round(dict(variants[node.name].parameters).get("kept", 0) * case.network.weight_shape(node).count)
            for node in case.network.layers
        )


def test_the_random_networks_have_all_that_is_difficult(random_case: MakeCase) -> None:
    cases = [random_case(seed, nodes=12, layers=6, low=seed % 2 == 0) for seed in range(40)]
    programs = [program_of(case) for case in cases]
    states = {
        frozenset(forms)
        for case in cases
        for forms in derive_formats(case.network, random_policy(case, np.random.default_rng(0))).kept.values()
    }
    assert len(states) >= 8
    assert sum(bool(program.values) for program in programs) >= 20
    assert max(len(value.readers) for program in programs for value in program.values) >= 3
    assert any(len(case.network.outputs) > 1 for case in cases)
    assert any(isinstance(node.op, ScaleShift) for case in cases for node in case.network)


@pytest.mark.parametrize("seed", range(12))
def test_a_policy_allows_exactly_one_option_of_every_value(random_case: MakeCase, seed: int) -> None:
    case = random_case(seed, nodes=12, layers=5, low=seed % 2 == 0)
    program, random = program_of(case), np.random.default_rng(seed)
    layers = len(case.menu)
    sizes = [len(group.options) for group in program.problem.groups[layers:]]
    if np.prod(sizes, dtype=float) > 5000:
        pytest.skip("too many combinations of value formats to try them all")
    for _ in range(3):
        choices = program.choices(random_policy(case, random))
        allowed = [
            rest
            for rest in product(*(range(size) for size in sizes))
            if not violations(program.problem, choices[:layers] + rest)
        ]
        assert allowed == [choices[layers:]]


def test_predict_agrees_with_the_program(random_case: MakeCase) -> None:
    case = random_case(5)
    variants = random_policy(case, np.random.default_rng(1))
    totals = totals_of(program_of(case), variants)
    predicted = predict(case.network, variants, case.loss, case.device, threads=case.threads, batch=case.batch)
    assert predicted["file_bytes"] == totals["bytes"]
    assert predicted["latency_ms"] == pytest.approx(1e3 * totals["latency"], rel=1e-8)
    assert predicted["loss"] == pytest.approx(totals["loss"], rel=1e-7)
    assert predicted["resident_bytes"] is not None and predicted["resident_bytes"] >= totals["memory"]
    without = predict(case.network, variants)
    assert without["latency_ms"] is None and without["loss"] is None
    assert without["file_bytes"] == predicted["file_bytes"]


def test_memory_has_a_resource_only_for_steps_that_can_be_the_fullest(random_case: MakeCase) -> None:
    case = random_case(5, nodes=12, layers=6)
    steps = [r for r in program_of(case).problem.resources if r.target == "memory"]
    assert 1 <= len(steps) < len(case.network.nodes)
    only_u8 = {name: [v for v in allowed if v.activation == "u8"] for name, allowed in case.menu.items()}
    constant = replace(case, menu={name: allowed or [FLOAT32] for name, allowed in only_u8.items()})
    if all(only_u8.values()):
        assert len([r for r in program_of(constant).problem.resources if r.target == "memory"]) == 1


def test_full_precision_weights_are_a_number_or_a_fraction(random_case: MakeCase) -> None:
    network = random_case(1).network
    total = sum(network.weight_shape(node).count for node in network.layers)
    assert full_precision_limit(network, Targets()) is None
    assert full_precision_limit(network, Targets(full_precision_weights=0.25)) == int(0.25 * total)
    assert full_precision_limit(network, Targets(full_precision_weights=500)) == 500
    assert full_precision_limit(network, Targets(full_precision_weights=0.0)) == 0


def test_errors_name_layer_and_remedy(random_case: MakeCase) -> None:
    case = random_case(1)
    layer = next(iter(case.menu))
    with pytest.raises(UsageError, match="'nowhere', which is not a layer"):
        program_of(replace(case, menu={**case.menu, "nowhere": [FLOAT32]}))
    with pytest.raises(UsageError, match=f"menu of layer '{layer}' is empty"):
        program_of(replace(case, menu={**case.menu, layer: []}))
    with pytest.raises(UsageError, match="no device profile; measure one"):
        build_problem(case.network, case.menu, Targets(latency=1.0), loss_profile=case.loss)
    with pytest.raises(UsageError, match="no loss profile; measure one"):
        build_problem(case.network, case.menu, Targets(), device_profile=case.device)
    program = program_of(case)
    odd = {name: allowed[0] for name, allowed in case.menu.items()} | {layer: Variant("ternary")}
    with pytest.raises(UsageError, match=f"layer '{layer}' may not be ternary"):
        program.choices(odd)
    with pytest.raises(UsageError, match=f"gives layer '{layer}' no variant"):
        predict(case.network, {})


def test_layers_and_operations_share_the_latency_of_the_network(random_case: MakeCase) -> None:
    conversions = 0
    for seed in range(6):
        case = random_case(seed, nodes=12, layers=6, low=True)
        variants = random_policy(case, np.random.default_rng(seed))
        predictor = Predictor(case.network, case.loss, case.device, case.threads, case.batch)
        policy = predictor.policy(variants)
        assert policy.kernels == predictor.kernels(variants)
        steps = policy_steps(case.network, variants, case.threads, case.batch, policy.kernels)
        others = [key for step, key in steps.items() if step not in variants]
        conversions += sum(step not in case.network.by_name for step in steps)
        operations = 1e3 * sum(case.device.latency(key).median for key in others)
        layers = [layer.latency_ms for layer in policy.layers if layer.latency_ms is not None]
        assert len(layers) == len(variants)
        assert sum(layers) + operations == pytest.approx(policy.predicted["latency_ms"])
    assert conversions


def test_the_policy_names_the_fastest_kernels(random_case: MakeCase) -> None:
    chosen = set()
    for seed in range(6):
        case = random_case(seed, low=True)
        variants = random_policy(case, np.random.default_rng(seed))
        policy = Predictor(case.network, case.loss, case.device, case.threads, case.batch).policy(variants)
        every = [dict(zip(variants, names, strict=True)) for names in product(*map(kernels_for, variants.values()))]
        slower = [
            predict(case.network, variants, None, case.device, threads=case.threads, batch=case.batch, kernels=kernels)
            for kernels in every
        ]
        assert policy.predicted["latency_ms"] == pytest.approx(min(other["latency_ms"] or 0 for other in slower))
        chosen |= set(policy.kernels.values())
    assert chosen == set(KERNELS)
    without = Predictor(case.network).policy(variants)
    assert without.kernels == {name: kernels_for(variant)[0] for name, variant in variants.items()}
    impossible = dict.fromkeys(variants, "floats" if "u8" in {v.activation for v in variants.values()} else "bytes")
    with pytest.raises(UsageError, match="cannot run on the kernel"):
        predict(case.network, variants, None, case.device, threads=case.threads, batch=case.batch, kernels=impossible)
