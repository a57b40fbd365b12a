"""Times executor steps on this machine, inside whole networks, by the kernels that will run.

A step is slower or faster with the cache state it finds, so it is timed in the network it belongs to: a few policies
that together execute every wanted step are loaded side by side and run in turn, a few runs at each visit. The first
run of a visit is left out: it finds the caches full of another policy's weights, while a latency is promised for
repeated inference. Many short visits spread slow drifts of the machine over all steps alike. The anchor is timed at
every visit: of each policy's visits the half counts during which the anchor was fastest, and what drift is left
between policies is divided out.
"""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial

import numpy as np
from numpy.typing import NDArray

from bitplan.errors import UsageError
from bitplan.network import Network
from bitplan.profiles.anchor import Anchor, calm_level, measure_anchor
from bitplan.profiles.cover import Menu, covering_policies
from bitplan.profiles.device import DeviceProfile
from bitplan.profiles.executor import Executor, Inputs, Load, load_runtime
from bitplan.profiles.fingerprint import Fingerprint, this_machine
from bitplan.profiles.foreground import foreground
from bitplan.profiles.samples import (
    StepSamples,
    calmer_half,
    middle_half,
    step_latency,
    undisturbed,
)
from bitplan.profiles.stand_in import stand_in_artifact, stand_in_input
from bitplan.profiles.steps import StepKey, all_keys, policy_steps

ROUNDS = 30
VISIT_SECONDS = 0.01
FEWEST_RUNS, MOST_RUNS = 3, 20
"""Runs of a visit: as many as fit into VISIT_SECONDS, within these."""
GROUP_BYTES = 256 << 20
FEWEST_POLICIES, MOST_POLICIES = 4, 12
GROUP_SECONDS = 10.0
"""Policies that are loaded at the same time and visited in turn, of at most GROUP_BYTES together (at least one): as many
as GROUP_SECONDS suffice for, since a group is what an interruption loses, but within these numbers. Fewer would not
spread drift well, so the last group takes up to three more rather than leaving them alone. Four policies take
GROUP_SECONDS where a run takes about 20 ms, and proportionally more in slower networks."""

__all__ = ["measure", "measure_anchor"]

Progress = Callable[[int, int], None]
"""Is told how many of how many visits are done."""


@dataclass
class _Visited:
    """One loaded policy and what its visits gave: seconds [runs, steps]."""

    keys: tuple[StepKey, ...]
    executor: Executor
    inputs: Inputs
    size: int
    """Bytes of the artifact."""
    runs: int = FEWEST_RUNS
    visit_seconds: float = 0.0
    """Expected duration of a visit."""
    times: list[NDArray[np.float64]] = field(default_factory=list)
    anchors: list[list[float]] = field(default_factory=list)
    """What the anchor took at each visit, in seconds."""

    def warm_up(self, anchor: Anchor) -> None:
        """Three runs; the faster of the last two tells how many fit into a visit."""
        cold, *warm = self.executor.time_steps(self.inputs, 3).sum(1).tolist()
        seconds = min(warm)
        self.runs = min(max(math.ceil(VISIT_SECONDS / max(seconds, 1e-9)), FEWEST_RUNS), MOST_RUNS)
        self.visit_seconds = cold + self.runs * seconds + sum(anchor.time())

    def visit(self, anchor: Anchor) -> None:
        self.anchors.append(anchor.time())
        self.times.append(self.executor.time_steps(self.inputs, self.runs + 1)[1:])

    def samples(self, anchor: float) -> Iterator[tuple[StepKey, StepSamples]]:
        """The samples of each step, brought to the speed at which the anchor takes `anchor` seconds."""
        factor = anchor / calm_level(self.anchors).median
        times = factor * np.concatenate([self.times[visit] for visit in calmer_half(self.anchors)])
        times = times[undisturbed(times.sum(1))]
        middle = middle_half(times.sum(1))
        for number, key in enumerate(self.keys):
            yield key, StepSamples(times[:, number], times[middle, number])


def measure(
    network: Network,
    menu: Menu,
    *,
    threads: int = 1,
    batch: int = 1,
    profile: DeviceProfile | None = None,
    rounds: int = ROUNDS,
    progress: Progress | None = None,
    save: Callable[[DeviceProfile], None] | None = None,
    isa: str | None = None,
    load: Load | None = None,
    fingerprint: Fingerprint | None = None,
) -> DeviceProfile:
    """The profile with every step that a policy of the menu can execute; steps that `profile` has are not timed again.

    `save` is called with the profile so far after each group of policies, about every GROUP_SECONDS, so that an
    interrupted measurement goes on where it was. `isa` forces a level of kernels; `load` and `fingerprint` stand in for the runtime and this machine.
    Raises UsageError if `profile` was measured on another machine or with other kernels.
    """
    here = fingerprint or this_machine(isa)
    load = load or partial(load_runtime, isa=isa)
    if profile and (differences := here.differences(profile.fingerprint)):
        raise UsageError(
            f"the device profile was measured elsewhere: {'; '.join(differences)}; measure into a file of its own"
        )
    wanted = all_keys(network, menu, threads, batch)
    missing = profile.missing(wanted) if profile else wanted
    if profile and not missing:
        return profile
    policies = covering_policies(network, menu, missing, threads, batch)
    inputs = stand_in_input(network, batch)
    anchor = Anchor(load)
    pooled: dict[StepKey, list[StepSamples]] = defaultdict(list)
    done = 0

    def count_visit() -> None:
        nonlocal done
        done += 1
        if progress:
            progress(done, len(policies) * rounds)

    def loaded() -> Iterator[_Visited]:
        for policy in policies:
            artifact = stand_in_artifact(network, policy.variants, batch, kernels=policy.kernels)
            executor = load(artifact, threads)
            keys = _checked_keys(executor, policy_steps(network, policy.variants, threads, batch, policy.kernels))
            one = _Visited(keys, executor, inputs, len(artifact))
            with foreground():  # here too: threads start in the first run and keep the priority they start with
                one.warm_up(anchor)
            yield one

    for visited in _groups(loaded(), len(policies), rounds):
        _visit_in_turn(visited, anchor, rounds, count_visit)
        profile = profile or DeviceProfile(here, calm_level([visit for one in visited for visit in one.anchors]))
        for one in visited:
            for key, samples in one.samples(profile.anchor.median):
                if key in missing:
                    pooled[key].append(samples)
        measured = {key: step_latency(samples) for key, samples in pooled.items()}
        now = datetime.now(UTC).isoformat(timespec="seconds")
        profile = replace(profile, fingerprint=here, entries={**profile.entries, **measured}, recorded=now)
        if save:
            save(profile)
    return profile or DeviceProfile(here, anchor.measure())


def _visit_in_turn(visited: Sequence[_Visited], anchor: Anchor, rounds: int, count: Callable[[], None]) -> None:
    """Visits every policy and the anchor in each round, in changing order."""
    shuffle = random.Random(0)
    for _ in range(rounds):
        for one in shuffle.sample(visited, len(visited)):
            with foreground():
                one.visit(anchor)
            count()


def _checked_keys(executor: Executor, steps: Mapping[str, StepKey]) -> tuple[StepKey, ...]:
    """The keys in the executor's order. Raises RuntimeError where it runs other steps than it should."""
    if list(executor.steps) != list(steps):
        raise RuntimeError(f"the executor runs the steps {list(executor.steps)}, expected {list(steps)}")
    return tuple(steps.values())


def _groups(policies: Iterable[_Visited], count: int, rounds: int) -> Iterator[list[_Visited]]:
    """Splits the `count` policies, in order, into groups that may be loaded together and do not take too long."""
    group: list[_Visited] = []
    for index, one in enumerate(policies):
        together = [*group, one]
        seconds = rounds * sum(member.visit_seconds for member in together)
        enough = min(len(group), count - index) >= FEWEST_POLICIES
        too_many = len(together) > MOST_POLICIES or seconds > GROUP_SECONDS
        if group and (sum(member.size for member in together) > GROUP_BYTES or (enough and too_many)):
            yield group
            together = [one]
        group = together
    if group:
        yield group
