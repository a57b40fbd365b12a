"""Frontiers: nothing dominates a point, each is an optimum of its own limits, and a killed run goes on."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from bitplan.errors import FileFormatError, InfeasibleError, UsageError
from bitplan.network_file import network_to_json
from bitplan.optimizer.build_problem import build_problem
from bitplan.optimizer.frontier import Frontier, frontier
from bitplan.optimizer.frontier.file import read_frontier, read_point, write_frontier
from bitplan.optimizer.frontier.grid import levels
from bitplan.optimizer.plan import plan
from bitplan.policies.policy_file import policy_hash
from bitplan.targets import Targets

MakeCase = Callable[..., Any]
Costs = tuple[int, ...]


def frontier_of(case: Any, targets: Targets | None = None, **settings: Any) -> Frontier:
    settings = {"time_limit": 120.0, "threads": case.threads, "batch": case.batch, **settings}
    return frontier(case.network, case.loss, case.device, targets or Targets(), case.menu, **settings)


class Oracle:
    """Loss, bytes and latency of every policy, in the program's integers."""

    def __init__(self, case: Any, targets: Targets | None = None) -> None:
        self.program = build_problem(
            case.network,
            case.menu,
            targets or Targets(),
            loss_profile=case.loss,
            device_profile=case.device,
            threads=case.threads,
            batch=case.batch,
        )
        resources = {resource.name: resource for resource in self.program.problem.resources}
        self.resources = [resources[name] for name in ("loss", "bytes", "latency") if name in resources]
        everything = [dict(zip(case.menu, choice, strict=True)) for choice in product(*case.menu.values())]
        self.all = [self.costs(variants) for variants in everything]

    def costs(self, variants: Any) -> Costs:
        choices = self.program.choices(variants)
        return tuple(resource.total(choices) for resource in self.resources)

    @property
    def front(self) -> set[Costs]:
        return {own for own in self.all if not self.dominated(own)}

    def dominated(self, own: Costs) -> bool:
        """Whether some policy dominates these costs."""
        all_costs, mine = np.array(self.all), np.array(own)
        return bool(((all_costs <= mine).all(1) & (all_costs < mine).any(1)).any())


def dominates(costs: Costs, other: Costs) -> bool:
    return costs != other and all(a <= b for a, b in zip(costs, other, strict=True))


@pytest.mark.parametrize(("seed", "pairs"), [(0, False), (1, False), (3, False), (0, True)])
def test_points_are_optimal_under_their_limits_and_not_dominated(
    random_case: MakeCase, paired: MakeCase, seed: int, pairs: bool
) -> None:
    case = random_case(seed, nodes=8, layers=3, low=seed % 2 == 0)
    case = paired(case, seed) if pairs else case
    oracle = Oracle(case)
    found = frontier_of(case, points=5 if pairs else 25)
    assert found.finished
    ours = [point for point in found.points if not point.uniform]
    assert len({point.name for point in found.points}) == len(found.points)
    for point in ours:
        assert point.efficient
        assert point.policy.certificate.status == "optimal"
        own = oracle.costs(point.policy.variants)
        assert not oracle.dominated(own)
        limits = point.policy.targets
        size = inf if limits.bytes is None else limits.bytes
        latency = inf if limits.latency is None else limits.latency / oracle.resources[2].resolution
        assert own[0] == min(costs[0] for costs in oracle.all if costs[1] <= size and costs[2] <= latency + 1e-6)
    reached = {oracle.costs(point.policy.variants) for point in ours}
    for axis in range(3):
        assert min(costs[axis] for costs in reached) == min(costs[axis] for costs in oracle.all)
    assert [p.policy.predicted["file_bytes"] for p in ours] == sorted(p.policy.predicted["file_bytes"] for p in ours)


@pytest.mark.parametrize("seed", range(2))
def test_uniform_policies_are_shown_with_what_dominates_them(random_case: MakeCase, seed: int) -> None:
    case = random_case(seed, nodes=8, layers=3)
    oracle = Oracle(case)
    points = {point.name: point for point in frontier_of(case, points=10).points}
    uniforms = [point for point in points.values() if point.uniform]
    assert uniforms
    for point in uniforms:
        own = oracle.costs(point.policy.variants)
        assert bool(point.dominated_by) == oracle.dominated(own)  # their own limits are asked for too
        if point.dominated_by:
            assert dominates(oracle.costs(points[point.dominated_by].policy.variants), own)


@pytest.mark.parametrize("seed", range(2))
def test_enough_points_are_the_whole_front_of_loss_and_bytes(random_case: MakeCase, seed: int) -> None:
    case = replace(random_case(seed, nodes=8, layers=3), device=None)
    oracle = Oracle(case)
    found = [point for point in frontier_of(case, points=1000).points if not point.uniform]
    assert {oracle.costs(point.policy.variants) for point in found} == oracle.front


def test_limits_hold_for_all_points(random_case: MakeCase) -> None:
    case = random_case(1, nodes=8, layers=3)
    free = [point.policy.predicted for point in frontier_of(case, points=12).points if not point.uniform]
    memory = sorted(figures["resident_bytes"] for figures in free)[len(free) // 2]
    size = int(sorted(figures["file_bytes"] for figures in free)[-2])
    found = frontier_of(case, Targets(memory=memory, bytes=size), points=12)
    for point in found.points:
        if not point.uniform:
            assert point.policy.predicted["resident_bytes"] <= memory
            assert point.policy.predicted["file_bytes"] <= size
            assert point.policy.targets.memory == memory
    with pytest.raises(InfeasibleError, match="file size"):
        frontier_of(case, Targets(bytes=10))
    with pytest.raises(UsageError, match="objective"):
        frontier_of(case, Targets(objective="bytes"))


def test_the_targets_of_a_point_plan_it_again(random_case: MakeCase) -> None:
    case = random_case(3, nodes=8, layers=3)
    for point in frontier_of(case, points=8).points:
        if not point.uniform:
            again = plan(
                case.network, case.loss, case.device, point.policy.targets, case.menu, threads=2, batch=3, time_limit=20
            )
            assert again.predicted["loss"] == pytest.approx(point.policy.predicted["loss"], abs=1e-9)


def test_without_time_for_all_points_the_rest_is_left_out(random_case: MakeCase) -> None:
    found = frontier_of(random_case(2, nodes=20, layers=8), points=400, time_limit=1.0)
    assert not found.finished
    assert any(not point.uniform for point in found.points)


def test_levels_go_down_by_equal_ratios() -> None:
    assert levels(100, 1600, 5) == [1600, 800, 400, 200, 100]
    assert levels(7, 7, 5) == [7]
    assert levels(0, 7, 5) == [7, 0]


def test_the_file_comes_back_and_names_its_points(random_case: MakeCase, tmp_path: Path) -> None:
    found = frontier_of(random_case(0, nodes=8, layers=3), points=6)
    path = tmp_path / "frontier.arrow"
    write_frontier(path, found)
    again = read_frontier(path)
    assert [replace(p, policy=None) for p in again.points] == [replace(p, policy=None) for p in found.points]
    for before, after in zip(found.points, again.points, strict=True):
        assert policy_hash(before.policy) == policy_hash(after.policy)
        assert after.policy.predicted == before.policy.predicted
    assert policy_hash(read_point(path, "p02")) == policy_hash(found.points[1].policy)
    with pytest.raises(UsageError, match="p02"):
        read_point(path, "p2")
    with pa.ipc.open_file(path) as reader:
        assert all(b"meaning" in field.metadata for field in reader.schema)
        assert reader.schema.field("latency").metadata[b"unit"] == b"ms"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(FileFormatError, match="optimize frontier"):
        read_frontier(path)


def decisions(found: Frontier) -> list[tuple[str, bytes]]:
    return [(point.name, policy_hash(point.policy)) for point in found.points]


def test_a_damaged_log_is_cut_where_it_is_damaged(random_case: MakeCase, tmp_path: Path) -> None:
    case, log = random_case(4, nodes=8, layers=3), tmp_path / "log"
    whole = frontier_of(case, points=10, log=log)
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(lines[:8]) + lines[8].replace(b"optimal", b"optimaL") + lines[9][:20])
    assert decisions(frontier_of(case, points=10, log=log)) == decisions(whole)
    rerun = log.read_bytes().splitlines(keepends=True)
    assert rerun[:8] == lines[:8]
    assert len(rerun) == len(lines)
    before = log.read_bytes()
    assert decisions(frontier_of(case, points=10, log=log)) == decisions(whole)
    assert log.read_bytes() == before  # nothing was solved again
    frontier_of(random_case(5, nodes=8, layers=3), points=3, log=log)
    assert log.read_bytes().splitlines()[0] != lines[0].strip()  # other work starts anew


def test_a_killed_run_goes_on_with_the_same_result(random_case: MakeCase, tmp_path: Path) -> None:
    case = random_case(6, nodes=14, layers=5, low=True)
    folder = tmp_path / "profiles"
    folder.mkdir()
    (folder / "network.json").write_text(network_to_json(case.network))
    case.device.save(folder / "device.arrow")
    case.loss.save(folder / "loss.arrow")
    encodings = sorted({str(variant) for variants in case.menu.values() for variant in variants})
    pins = [f"{layer}={variants[0]}" for layer, variants in case.menu.items() if len(variants) < len(encodings)]
    command = [sys.executable, "-P", "-c", "from bitplan.cli import main; main()", "frontier", str(folder), "--json"]
    command += ["--points", "10", "--threads", "2", "--batch", "3", "--time-limit", "300", "-q"]
    command += [word for encoding in encodings for word in ("--encodings", encoding)]
    command += [word for pin in pins for word in ("--pin", pin)]

    def start(output: Path) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*command, "-o", str(output)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    through, killed = tmp_path / "through", tmp_path / "killed"
    expected, error = start(through).communicate(timeout=300)
    assert expected, error
    journal = killed / "frontier.journal"
    for kept in (4, 15):
        child = start(killed)
        while child.poll() is None and (not journal.exists() or journal.read_bytes().count(b"\n") < kept):
            time.sleep(0.002)
        child.send_signal(signal.SIGKILL)
        child.communicate()
        done = journal.read_bytes().splitlines(keepends=True)
    out, error = start(killed).communicate(timeout=300)
    assert out, error
    whole = [line for line in done if line.endswith(b"\n")]
    assert journal.read_bytes().splitlines(keepends=True)[: len(whole)] == whole

    def without_seconds(text: str) -> list[dict[str, Any]]:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in json.loads(text)["points"]]

    assert without_seconds(out) == without_seconds(expected)
    solved = len((through / "frontier.journal").read_bytes().splitlines())
    assert len(journal.read_bytes().splitlines()) == solved


def test_the_least_time_gives_a_point_at_least(random_case: MakeCase) -> None:
    found = frontier_of(random_case(2, nodes=20, layers=8), time_limit=1e-3)
    assert not found.finished
    assert [point for point in found.points if not point.uniform]
