"""The readable top: build the program, solve it, check the arena, hand out the policy."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from bitplan.errors import BitplanError, InfeasibleError
from bitplan.kernels.artifact import layer_bytes
from bitplan.network import Network
from bitplan.optimizer.build_problem import Menu, Program, build_problem
from bitplan.optimizer.infeasible import explain
from bitplan.optimizer.predict import Predictor, predict
from bitplan.optimizer.problem import Problem
from bitplan.optimizer.solution import Solution, Status
from bitplan.optimizer.solvers import solve
from bitplan.policies.policy import Certificate, Policy
from bitplan.targets import Targets
from bitplan.variant import FLOAT32, Variant

if TYPE_CHECKING:
    from bitplan.profiles.device import DeviceProfile
    from bitplan.profiles.loss import LossProfile

MOST_TIGHTENINGS = 10
"""Times that the memory limit is tightened because the arena planner could not reach the bound of live values."""


def plan(
    network: Network,
    loss_profile: LossProfile | None,
    device_profile: DeviceProfile | None,
    targets: Targets,
    menu: Menu,
    *,
    threads: int = 1,
    batch: int = 1,
    time_limit: float = 60.0,
    seed: int = 0,
) -> Policy:
    """The best policy under the targets, with its predictions and the solver's certificate.

    Raises InfeasibleError, explaining which limits conflict, if there is none; UsageError for a menu or profiles that
    do not fit; BitplanError if no policy was found within `time_limit` seconds.
    """
    begin = time.perf_counter()
    predictor = Predictor(network, loss_profile, device_profile, threads, batch)
    memory = targets.memory
    for _ in range(MOST_TIGHTENINGS):
        tightened = replace(targets, memory=memory)
        program = build_problem(
            network,
            menu,
            tightened,
            loss_profile=loss_profile,
            device_profile=device_profile,
            threads=threads,
            batch=batch,
        )
        starts = [program.choices(variants) for variants in uniform_policies(network, program.menu).values()]
        left = max(time_limit - (time.perf_counter() - begin), 0.1)
        solution = solve(program.problem, time_limit=left, seed=seed, starts=starts)
        if solution.choices is None and memory != targets.memory:
            break
        if solution.choices is None:
            raise _no_policy(program, solution, time_limit, seed)
        variants = program.variants(solution.choices)
        resident = predictor.resident_bytes(variants)
        if targets.memory is None or resident <= targets.memory:
            settings = {"seed": seed, "time_limit": time_limit}
            return predictor.policy(variants, targets, _certificate(program.problem, solution), settings)
        assert memory is not None
        memory -= resident - targets.memory
        if memory <= 0:
            break
    raise InfeasibleError(
        f"under the other limits, no policy was found whose arena fits into {targets.memory:,} bytes of memory with its "
        f"weights, although the values alive at any one time would; one needs {resident:,} bytes. Raise the memory limit "
        "to that"
    )


def uniform(
    network: Network,
    variant: Variant,
    menu: Menu,
    loss_profile: LossProfile | None = None,
    device_profile: DeviceProfile | None = None,
    *,
    threads: int = 1,
    batch: int = 1,
) -> Policy | None:
    """The policy that gives every layer this variant, with its predictions; a layer that may not have it gets the
    nearest one on its menu. None if no layer may have it."""
    variants = uniform_variants(network, variant, menu)
    if variants is None:
        return None
    return Predictor(network, loss_profile, device_profile, threads, batch).policy(variants)


def uniform_variants(network: Network, variant: Variant, menu: Menu) -> dict[str, Variant] | None:
    """One variant per layer: the given one, else the same encoding with other parameters, else the one of the most
    similar size, float32 where the menu has nothing; None if no layer may have the given one."""
    chosen = {}
    for node in network.layers:
        allowed: Sequence[Variant] = menu.get(node.name) or (FLOAT32,)
        size = layer_bytes(network, node, variant)

        def distance(other: Variant, size: int = size, name: str = node.name) -> tuple[bool, bool, int]:
            other_size = layer_bytes(network, network.by_name[name], other)
            return other != variant, other.encoding != variant.encoding, abs(other_size - size)

        chosen[node.name] = min(allowed, key=distance)
    return chosen if variant in chosen.values() else None


def uniform_policies(network: Network, menu: Menu) -> dict[Variant, Mapping[str, Variant]]:
    """The uniform policy of every variant that some layer may have."""
    offered = dict.fromkeys(variant for variants in menu.values() for variant in variants)
    found = {variant: uniform_variants(network, variant, menu) for variant in offered}
    return {variant: variants for variant, variants in found.items() if variants is not None}


def _certificate(problem: Problem, solution: Solution) -> Certificate:
    """Objective and bound in the unit of the objective's target: seconds, bytes or loss."""
    return Certificate(
        str(solution.status),
        None if solution.objective is None else problem.value(solution.objective),
        None if solution.bound is None else problem.value(solution.bound),
        solution.gap,
        solution.seconds,
        solution.solver,
    )


def _no_policy(program: Program, solution: Solution, time_limit: float, seed: int) -> BitplanError:
    if solution.status == Status.INFEASIBLE:
        return InfeasibleError(explain(program.problem, time_limit=time_limit, seed=seed).text())
    return BitplanError(
        f"no policy that meets the limits was found within {time_limit:g} s, and none was proven impossible; "
        "raise the time limit or the limits"
    )


__all__ = ["plan", "predict", "uniform", "uniform_policies", "uniform_variants"]
