"""A small set of policies that together execute every wanted step, so that steps are timed inside whole networks."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence

from bitplan.network import Network
from bitplan.profiles.steps import StepKey, Way, policy_steps, step_ways
from bitplan.variant import Variant

Menu = Mapping[str, Sequence[Variant]]


def covering_policies(
    network: Network, menu: Menu, wanted: Iterable[StepKey], threads: int = 1, batch: int = 1, seed: int = 0
) -> list[dict[str, Variant]]:
    """Policies (a variant for every layer) whose steps include all wanted ones that the menu can reach: the uniform
    policies first, then mixed ones, each forced greedily to execute as many of the steps still missing as it can."""
    ways = step_ways(network, menu, threads, batch)
    missing = set(wanted) & ways.keys()
    shuffle = random.Random(seed)
    policies: list[dict[str, Variant]] = []

    def keep(policy: dict[str, Variant]) -> None:
        covered = missing.intersection(policy_steps(network, policy, threads, batch).values())
        if covered:
            policies.append(policy)
            missing.difference_update(covered)

    for variant in dict.fromkeys(variant for variants in menu.values() for variant in variants):
        keep({name: variant if variant in variants else variants[0] for name, variants in menu.items()})
    while missing:
        order = sorted(missing)
        shuffle.shuffle(order)
        draft = _Draft(menu)
        for key in order:
            any(draft.accept(way) for way in shuffle.sample(ways[key], len(ways[key])))
        keep(draft.completed(shuffle))
    return policies


class _Draft:
    """A policy in the making: some layers have their variant, some only their activation format. An empty draft
    accepts every way, so that each finished policy covers at least one step."""

    def __init__(self, menu: Menu) -> None:
        self.menu = menu
        self.variants: dict[str, Variant] = {}
        self.formats: dict[str, str] = {}

    def accept(self, way: Way) -> bool:
        """Takes the way's demands on if they agree with all earlier ones."""
        formats = {**way.formats, **{name: variant.activation for name, variant in way.variants.items()}}
        if any(self.variants.get(name, variant) != variant for name, variant in way.variants.items()):
            return False
        if any(self.formats.get(name, form) != form for name, form in formats.items()):
            return False
        self.variants.update(way.variants)
        self.formats.update(formats)
        return True

    def completed(self, shuffle: random.Random) -> dict[str, Variant]:
        """Fills the layers that are still free at random."""
        return {
            name: self.variants.get(name)
            or shuffle.choice([v for v in variants if self.formats.get(name, v.activation) == v.activation])
            for name, variants in self.menu.items()
        }
