"""Plans that are made anew after a miss are not polished each: only the one that is chosen, and that is verified."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from bitplan.config import Config
from bitplan.measured import CarriedOut
from bitplan.policies.policy import LayerPolicy, Policy
from bitplan.progress import Reporter
from bitplan.result import MeasuredLatency
from bitplan.targets import Targets
from bitplan.variant import Variant
from bitplan.workflow import plan_and_measure

SLOW, FAST, BETTER = (Policy((LayerPolicy("fc", Variant(name), 1),)) for name in ("int8", "int4", "int3"))
TARGETS = Targets(latency=1e-3)


class Job:
    """Plans SLOW, then FAST; polishes to `polished`, and measures the milliseconds of `times`."""

    def __init__(self, times, polished=BETTER):
        self.config, self.reporter, self.targets = Config(rounds=1), Reporter(quiet=True), TARGETS
        self.times, self.polished_to = times, polished
        self.planned, self.polished_under, self.carried = [], [], []

    def plan(self, limits):
        self.planned.append(limits)
        return SLOW if len(self.planned) == 1 else FAST

    def polished(self, policy, limits):
        self.polished_under.append((policy, limits))
        return replace(self.polished_to or policy, settings={"polish": "report"})

    def carry_out(self, policy):
        self.carried.append(policy.variants)
        median = self.times[str(policy.layers[0].variant)]
        latency = MeasuredLatency(median, median, median, 1.0, median)
        return CarriedOut(policy, b"", SimpleNamespace(latency=latency, predicted_latency_ms=1.0), 0)


def test_only_the_chosen_plan_is_polished_within_its_own_limits_and_then_verified():
    job = Job({"int8": 2.0, "int4": 0.9, "int3": 0.8})
    found = plan_and_measure(job, TARGETS)
    assert [policy.variants for policy, _ in job.polished_under] == [FAST.variants]
    assert job.polished_under[0][1] == job.planned[1] != TARGETS
    assert job.carried == [SLOW.variants, FAST.variants, BETTER.variants]
    assert found.policy.variants == BETTER.variants


def test_a_polished_policy_that_alone_misses_the_target_is_left_out():
    found = plan_and_measure(Job({"int8": 0.9, "int3": 1.1}), TARGETS)
    assert found.policy.variants == SLOW.variants


@pytest.mark.parametrize("median", [0.9, 5.0])
def test_without_a_swap_nothing_is_carried_out_again(median):
    job = Job({"int8": median, "int4": median}, polished=None)
    found = plan_and_measure(job, TARGETS)
    assert len(job.carried) == len(job.planned)
    assert found.policy.settings == {"polish": "report"}


def test_where_the_target_is_missed_anyway_the_better_loss_counts():
    job = Job({"int8": 3.0, "int4": 2.0, "int3": 2.5})
    assert plan_and_measure(job, TARGETS).policy.variants == BETTER.variants
