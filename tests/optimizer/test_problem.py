"""Problems are validated, scaled once, and checked without a solver."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitplan.optimizer.builder import TOTAL_BITS, ProblemBuilder
from bitplan.optimizer.check import WrongSolutionError, check, feasible, violations
from bitplan.optimizer.problem import Group, Problem, Resource, frozen
from bitplan.optimizer.solution import Solution, Status


def two_groups() -> ProblemBuilder:
    builder = ProblemBuilder()
    builder.add_group("conv1", ["int8", "int4"])
    builder.add_group("conv2", ["int8", "int4", "binary"])
    builder.add_resource("bytes", counted=True, limit=10)
    builder.add_linear("bytes", 0, [8, 4])
    builder.add_linear("bytes", 1, [8, 4, 1])
    builder.add_resource("loss")
    builder.add_linear("loss", 0, [0.0, 0.25])
    builder.add_linear("loss", 1, [0.0, 0.5, 1.0])
    builder.forbid(0, 1, [[False, False, True], [False, False, False]])
    return builder


def right_solution(problem: Problem) -> Solution:
    """int4 and int4: loss 0.75 (int8 and binary would be 1.0, and is forbidden)."""
    loss = problem.resources[1].total((1, 1))
    return Solution(Status.OPTIMAL, (1, 1), loss, loss, 0.1, "test")


def test_a_right_solution_passes() -> None:
    problem = two_groups().build("loss")
    check(problem, right_solution(problem))
    assert problem.value(right_solution(problem).objective or 0) == 0.75
    assert dict(problem.named((1, 1))) == {"conv1": "int4", "conv2": "int4"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"choices": (0, 0)}, "resource 'bytes' totals 16, above its limit 10"),
        ({"choices": (0, 2)}, "'conv1' = int8 and 'conv2' = binary are forbidden together"),
        ({"choices": (1, 3)}, "group 'conv2' has no option number 3"),
        ({"choices": (1, -1)}, "group 'conv2' has no option number -1"),
        ({"choices": (1,)}, "1 choices for 2 groups"),
        ({"choices": (1, 2)}, "it states the objective"),
        ({"objective": 0}, "it states the objective 0, recomputed"),
        ({"bound": 2**52}, "lies above its own objective"),
        ({"bound": 0}, "called optimal, but its bound 0"),
        ({"bound": None}, "called optimal, but its bound None"),
        ({"choices": None}, "it is optimal but names no choices"),
        ({"status": Status.INFEASIBLE}, "it is infeasible but names choices"),
        ({"status": Status.UNKNOWN}, "it is unknown but names choices"),
    ],
)
def test_a_wrong_solution_is_caught(change: dict[str, object], message: str) -> None:
    problem = two_groups().build("loss")
    with pytest.raises(WrongSolutionError, match="the answer of test is wrong") as caught:
        check(problem, replace(right_solution(problem), **change))  # type: ignore[arg-type]
    assert message in str(caught.value)


def test_a_gap_is_relative_to_the_objective() -> None:
    assert Solution(Status.FEASIBLE, (0,), 200, 150).gap == 0.25
    assert Solution(Status.FEASIBLE, (0,), -200, -250).gap == 0.25
    assert Solution(Status.OPTIMAL, (0,), 0, 0).gap == 0
    assert Solution(Status.FEASIBLE, (0,), 200, None).gap is None
    assert Solution(Status.UNKNOWN).gap is None


def linear(*tables: list[int]) -> tuple[np.ndarray[tuple[int, ...], np.dtype[np.int64]], ...]:
    return tuple(frozen(np.array(table, np.int64)) for table in tables)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"groups": (Group("a", ("x", "y")), Group("a", ("x",)))}, "group 'a' appears twice"),
        ({"groups": (Group("a", ()), Group("b", ("x",)))}, "group 'a' has no options"),
        ({"groups": (Group("a", ("x", "x")), Group("b", ("x",)))}, "option of group 'a' 'x' appears twice"),
        ({"resources": (Resource("r", linear([1, 2]), target="r"),)}, "'r' has linear costs for 1 groups, not 2"),
        (
            {"resources": (Resource("r", linear([1, 2, 3], [1]), target="r"),)},
            r"resource 'r': the costs of group 'a' have shape \(3,\), the options need \(2,\)",
        ),
        (
            {"resources": (Resource("r", (np.zeros(2, np.int64), *linear([1])), target="r"),)},
            "costs of group 'a' can be written to",
        ),
        (
            {"resources": (Resource("r", (frozen(np.zeros(2)), *linear([1])), target="r"),)},  # type: ignore[arg-type]
            "costs of group 'a' have type float64, not int64",
        ),
        (
            {"resources": (Resource("r", linear([1, 2**53], [1]), target="r"),)},
            r"resource 'r' can reach 2\^53",
        ),
        (
            {"resources": (Resource("r", linear([1, 2], [1]), {(1, 0): linear([0])[0]}, target="r"),)},
            r"link \(1, 0\) must name two of the 2 groups in ascending order",
        ),
        (
            {"resources": (Resource("r", linear([1, 2], [1]), {(0, 1): linear([0, 0])[0]}, target="r"),)},
            "the pair costs between 'a' and 'b' have shape",
        ),
        ({"objective": "speed"}, "objective 'speed' is not the target of a resource; targets: r"),
        ({"forbidden": {(0, 1): frozen(np.zeros((1, 1), np.bool_))}}, "forbidden pairs between 'a' and 'b' have shape"),
    ],
)
def test_parts_that_do_not_fit_are_named(parts: dict[str, object], message: str) -> None:
    whole: dict[str, object] = {
        "groups": (Group("a", ("x", "y")), Group("b", ("x",))),
        "resources": (Resource("r", linear([1, 2], [1]), target="r"),),
        "objective": "r",
    }
    Problem(**whole)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=message):
        Problem(**(whole | parts))  # type: ignore[arg-type]


def test_numbers_that_cannot_be_costs_are_named_with_their_place() -> None:
    builder = two_groups()
    with pytest.raises(ValueError, match="resource 'loss': the cost of 'conv2' = int4 is nan, not a finite number"):
        builder.add_linear("loss", 1, [0, float("nan"), 0])
    with pytest.raises(ValueError, match="the cost of 'conv1' = int4 with 'conv2' = int8 is inf"):
        builder.add_pair("loss", 0, 1, np.array([[0, 0, 0], [np.inf, 0, 0]]))
    with pytest.raises(ValueError, match=r"costs of 'conv1' have shape \(3,\), not \(2,\)"):
        builder.add_linear("loss", 0, [1, 2, 3])
    with pytest.raises(ValueError, match="limit of resource 'time' is nan"):
        builder.add_resource("time", limit=float("nan"))
    with pytest.raises(ValueError, match="resource 'loss' appears twice"):
        builder.add_resource("loss")
    builder.add_linear("bytes", 0, [0.5, 0])
    with pytest.raises(ValueError, match=r"resource 'bytes': the cost of 'conv1' = int8 is 8.5, not a whole number"):
        builder.build("loss")


def test_too_large_counts_are_refused_and_large_floats_are_scaled() -> None:
    builder = two_groups()
    builder.add_linear("bytes", 0, [2.0**60, 0])
    with pytest.raises(ValueError, match="resource 'bytes' can reach"):
        builder.build("loss")
    builder = two_groups()
    builder.add_linear("loss", 0, [1e300, 0])
    problem = builder.build("loss")
    assert problem.resources[1].largest_total <= 2**TOTAL_BITS


def test_tiny_and_empty_costs_are_scaled_too() -> None:
    for size in (0.0, 5e-324, 1e-300, 1e-9):
        builder = ProblemBuilder()
        builder.add_group("a", ["x", "y"])
        builder.add_resource("loss", limit=1e9)
        builder.add_linear("loss", 0, [0.0, size])
        problem = builder.build("loss")
        assert problem.limited == ()
        assert problem.value(problem.resources[0].total((1,))) == pytest.approx(size, rel=1e-9, abs=1e-300)


costs = st.floats(-1e6, 1e6).filter(lambda x: x == 0 or abs(x) > 1e-12)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(costs, costs), min_size=1, max_size=6), st.data())
def test_scaled_totals_are_exact_to_half_a_unit_per_cost(
    tables: list[tuple[float, float]], data: st.DataObject
) -> None:
    builder = ProblemBuilder()
    choices = tuple(data.draw(st.integers(0, 1)) for _ in tables)
    exact = sum(table[choice] for table, choice in zip(tables, choices, strict=True))
    builder.add_resource("loss", limit=exact)
    for number, table in enumerate(tables):
        builder.add_group(f"g{number}", ["x", "y"])
        builder.add_linear("loss", number, table)
    problem = builder.build("loss")
    (resource,) = problem.resources
    assert abs(resource.total(choices) * resource.resolution - exact) <= (len(tables) + 1) / 2 * resource.resolution
    assert resource.largest_total < 2 ** (TOTAL_BITS + 1)
    assert feasible(problem, choices)  # it meets in integers a limit that it meets in floats
    assert resource.limit is not None
    assert abs(resource.limit * resource.resolution - exact) <= (len(tables) + 3) * resource.resolution


def test_costs_of_the_same_place_add_up_in_either_order_of_the_pair() -> None:
    builder = two_groups()
    builder.add_pair("bytes", 0, 1, [[0, 0, 0], [0, 5, 0]])
    builder.add_pair("bytes", 1, 0, [[0, 0], [0, 2], [0, 0]])
    builder.add_constant("bytes", 100)
    builder.forbid(1, 0, [[True, False], [False, False], [False, False]])
    problem = builder.build("loss")
    assert problem.resources[0].total((1, 1)) == 100 + 4 + 4 + 5 + 2
    assert len(violations(problem, (0, 0))) == 2  # the pair and the bytes
    assert len(violations(problem, (0, 2))) == 2


def test_resources_of_one_target_share_their_resolution() -> None:
    builder = two_groups()
    for name, cost in (("at 1", 1.0), ("at 2", 1000.0)):
        builder.add_resource(name, target="memory", limit=10.0)
        builder.add_linear(name, 0, [cost, 0.5 * cost])
    problem = builder.build("memory")
    first, second = problem.objectives
    assert first.resolution == second.resolution
    assert second.largest_total == 1000 * first.largest_total
