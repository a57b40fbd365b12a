"""The readable top: build the program, solve it, check the arena, hand out the policy."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from bitplan.errors import BitplanError, InfeasibleError
from bitplan.kernels.artifact import layer_bytes
from bitplan.network import Network
from bitplan.optimizer.build_problem import LOSS, Menu
from bitplan.optimizer.infeasible import explain
from bitplan.optimizer.packing import PackedSolver
from bitplan.optimizer.predict import Predictor, predict
from bitplan.optimizer.problem import Problem
from bitplan.optimizer.solution import Solution, Status
from bitplan.policies.policy import Certificate, Policy
from bitplan.targets import Targets
from bitplan.variant import BITS, FLOAT32, Variant

if TYPE_CHECKING:
    from bitplan.profiles.device import DeviceProfile
    from bitplan.profiles.loss import LossProfile


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

    Raises InfeasibleError, explaining which limits conflict, if it is proven that there is none; UsageError for a menu
    or profiles that do not fit; BitplanError if no policy was found within `time_limit` seconds.
    """
    begin = time.perf_counter()
    packed = PackedSolver.of(network, loss_profile, device_profile, targets, menu, threads=threads, batch=batch)
    program, predictor = packed.program, packed.predictor
    starts = [program.choices(variants) for variants in uniform_policies(network, program.menu).values()]
    left = max(time_limit - (time.perf_counter() - begin), 0.1)
    solution = packed.solve(program.problem, time_limit=left, seed=seed, starts=starts)
    if solution.choices is None:
        raise _no_policy(packed, solution, predictor, targets, time_limit, seed)
    settings = {"seed": seed, "time_limit": time_limit}
    certificate = _certificate(program.problem, solution, loss_profile)
    return predictor.policy(program.variants(solution.choices), targets, certificate, settings)


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
    """One variant per layer: the given one, else the same encoding with other activations or parameters, else the one
    of the most similar size, float32 where the menu has nothing; None if no layer may have the given one."""
    chosen = {}
    for node in network.layers:
        allowed: Sequence[Variant] = menu.get(node.name) or (FLOAT32,)
        size = layer_bytes(network, node, variant)

        def distance(other: Variant, size: int = size, name: str = node.name) -> tuple[bool, bool, int, int]:
            difference = abs(layer_bytes(network, network.by_name[name], other) - size)
            bits = abs(BITS[other.activation] - BITS[variant.activation])
            return other != variant, other.encoding != variant.encoding, difference, bits

        chosen[node.name] = min(allowed, key=distance)
    return chosen if variant in chosen.values() else None


def uniform_policies(network: Network, menu: Menu) -> dict[Variant, Mapping[str, Variant]]:
    """The uniform policy of every variant that some layer may have."""
    offered = dict.fromkeys(variant for variants in menu.values() for variant in variants)
    found = {variant: uniform_variants(network, variant, menu) for variant in offered}
    return {variant: variants for variant, variants in found.items() if variants is not None}


def _certificate(problem: Problem, solution: Solution, profile: LossProfile | None) -> Certificate:
    """Objective and bound in the unit of the objective's target: seconds, bytes or loss; the gap is that of the
    program, whose objective is the score behind the loss."""

    def stated(number: int | None) -> float | None:
        if number is None:
            return None
        value = problem.value(number)
        return profile.link.loss(value) if profile is not None and problem.objective == LOSS else value

    return Certificate(
        str(solution.status),
        stated(solution.objective),
        stated(solution.bound),
        solution.gap,
        solution.seconds,
        solution.solver,
    )


def _no_policy(
    packed: PackedSolver, solution: Solution, predictor: Predictor, targets: Targets, time_limit: float, seed: int
) -> BitplanError:
    if solution.status == Status.INFEASIBLE:
        problem = packed.program.problem
        found = explain(
            problem, time_limit=time_limit, seed=seed, solve=packed.solve, conflicts=True, stated=predictor.stated
        )
        return InfeasibleError(found.text(), found.to_json())
    seen = packed.smallest_seen
    if targets.memory is not None and seen is not None:
        return BitplanError(
            f"no policy was found whose weights and arena fit into {targets.memory:,} bytes of memory, although the "
            f"values alive at any one time would, and none was proven impossible; the smallest policy seen within the "
            f"other limits needs {seen:,} bytes. Raise the memory limit to that, or the time limit of {time_limit:g} s"
        )
    return BitplanError(
        f"no policy that meets the limits was found within {time_limit:g} s, and none was proven impossible; "
        "raise the time limit or the limits"
    )


__all__ = ["plan", "predict", "uniform", "uniform_policies", "uniform_variants"]
