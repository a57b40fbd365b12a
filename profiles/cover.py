"""A small set of policies that together execute every wanted step, so that steps are timed inside whole networks."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from bitplan.compute import kernels_for
from bitplan.network import Network
from bitplan.profiles.format_choice import Demands, Domains, narrowed, satisfied
from bitplan.profiles.steps import Kernels, StepKey, Way, policy_steps, step_ways
from bitplan.variant import Variant

Menu = Mapping[str, Sequence[Variant]]


@dataclass(frozen=True)
class Cover:
    """One of the policies: a variant and a compute kernel for every layer."""

    variants: Mapping[str, Variant]
    kernels: Kernels


def covering_policies(
    network: Network, menu: Menu, wanted: Iterable[StepKey], threads: int = 1, batch: int = 1, seed: int = 0
) -> list[Cover]:
    """Policies whose steps include all wanted ones that the menu can reach: the uniform policies first, then mixed ones,
    each forced greedily to execute as many of the steps still missing as it can."""
    ways = step_ways(network, menu, threads, batch)
    missing = set(wanted) & ways.keys()
    shuffle = random.Random(seed)
    policies: list[Cover] = []

    def keep(policy: Cover) -> None:
        steps = policy_steps(network, policy.variants, threads, batch, policy.kernels)
        covered = missing.intersection(steps.values())
        if covered:
            policies.append(policy)
            missing.difference_update(covered)

    for variant in dict.fromkeys(variant for variants in menu.values() for variant in variants):
        chosen = {name: variant if variant in variants else variants[0] for name, variants in menu.items()}
        for kernel in kernels_for(variant):
            keep(Cover(chosen, {name: _kernel(kernel, v) for name, v in chosen.items()}))
    while missing:
        order = sorted(missing)
        shuffle.shuffle(order)
        draft = _Draft(menu, shuffle)
        for key in order:
            any(draft.accept(way) for way in shuffle.sample(ways[key], len(ways[key])))
        keep(draft.completed())
    return policies


def _kernel(wanted: str, variant: Variant) -> str:
    return wanted if wanted in kernels_for(variant) else kernels_for(variant)[0]


class _Draft:
    """A policy in the making: some layers have their variant and kernel, others only the activation formats they may
    still choose. An empty draft accepts every way, so that each finished policy covers at least one step."""

    def __init__(self, menu: Menu, shuffle: random.Random) -> None:
        self.menu = menu
        self.shuffle = shuffle
        self.variants: dict[str, Variant] = {}
        self.kernels: dict[str, str] = {}
        self.domains: Domains = {name: frozenset(v.activation for v in variants) for name, variants in menu.items()}

    def accept(self, way: Way) -> bool:
        """Takes the way's demands on if they agree with all earlier ones."""
        if any(self.variants.get(name, variant) != variant for name, variant in way.variants.items()):
            return False
        if any(self.kernels.get(name, kernel) != kernel for name, kernel in way.kernels.items()):
            return False
        domains = narrowed(self.domains, {name: frozenset([v.activation]) for name, v in way.variants.items()})
        if not all(domains.values()):
            return False
        found = next(satisfied(self._shuffled(way.demands), domains), None)
        if found is None:
            return False
        self.variants.update(way.variants)
        self.kernels.update(way.kernels)
        self.domains = found
        return True

    def completed(self) -> Cover:
        """Fills what is still free at random."""
        variants = {
            name: self.variants.get(name)
            or self.shuffle.choice([v for v in offered if v.activation in self.domains[name]])
            for name, offered in self.menu.items()
        }
        kernels = {name: self.kernels.get(name) or self.shuffle.choice(kernels_for(v)) for name, v in variants.items()}
        return Cover(variants, kernels)

    def _shuffled(self, demands: Demands) -> Demands:
        return [self.shuffle.sample(demand, len(demand)) for demand in demands]
