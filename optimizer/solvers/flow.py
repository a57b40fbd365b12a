"""The linear model of pair terms, in flow form.

Between two linked groups stands a transport from the options of one to the options of the other: flow[i, j] is 1
where i and j are both chosen, its margins are the choices. Forbidden pairs have no flow. For one link this is the
convex hull of its pairs, so chains and trees of links have tight relaxations; products x(i) x(j) bounded one by one
do not.

Options that a link cannot tell apart share one class, and only classes are joined by flow. To have few classes, each
table is first freed of what depends on one side alone, which moves to the linear costs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bitplan.optimizer.problem import Integers, Link, Mask, Problem, Resource


@dataclass(frozen=True)
class FlowLink:
    """One link: the class of every option of either side, which class pairs are allowed [classes, classes], and
    their costs by number of the active resource."""

    link: Link
    classes: tuple[Integers, Integers]
    allowed: Mask
    costs: dict[int, Integers]


@dataclass(frozen=True)
class FlowModel:
    """linear[r][g]: costs of the active resources after tables were freed of one-sided parts; `links` joined by flow."""

    resources: tuple[Resource, ...]
    linear: tuple[tuple[Integers, ...], ...]
    links: tuple[FlowLink, ...]

    @property
    def flows(self) -> int:
        """Number of flow variables."""
        return sum(int(link.allowed.sum()) for link in self.links)


def flow_model(problem: Problem) -> FlowModel:
    """The model of the problem's active resources and forbidden pairs."""
    linear = [[table.copy() for table in resource.linear] for resource in problem.active]
    links = []
    for link in problem.links:
        a, b = link
        shape = (len(problem.groups[a].options), len(problem.groups[b].options))
        allowed = ~problem.forbidden[link] if link in problem.forbidden else np.ones(shape, np.bool_)
        costs: dict[int, Integers] = {}
        for number, resource in enumerate(problem.active):
            if link in resource.pairs:
                table, rows, columns = _freed(resource.pairs[link], allowed)
                linear[number][a] += rows
                linear[number][b] += columns
                if np.any(table[allowed]):
                    costs[number] = np.where(allowed, table, 0)
        if costs or not allowed.all():
            links.append(_classes(link, allowed, costs))
    return FlowModel(problem.active, tuple(tuple(tables) for tables in linear), tuple(links))


def _freed(table: Integers, allowed: Mask) -> tuple[Integers, Integers, Integers]:
    """table = rest + rows + columns on the allowed pairs; the rest is zero in the first row and column of each
    connected part of the allowed pairs where that is possible at all."""
    rows, columns = np.zeros(len(table), np.int64), np.zeros(table.shape[1], np.int64)
    if allowed.all():
        columns = table[0].copy()
        rows = table[:, 0] - table[0, 0]
        return table - rows[:, None] - columns[None, :], rows, columns
    row_known, column_known = np.zeros(len(rows), np.bool_), np.zeros(len(columns), np.bool_)
    for start in range(len(rows)):
        if row_known[start]:
            continue
        row_known[start] = True
        queue: list[tuple[bool, int]] = [(True, start)]
        for is_row, k in queue:
            if is_row:
                for j in np.flatnonzero(allowed[k] & ~column_known):
                    columns[j], column_known[j] = table[k, j] - rows[k], True
                    queue.append((False, int(j)))
            else:
                for i in np.flatnonzero(allowed[:, k] & ~row_known):
                    rows[i], row_known[i] = table[i, k] - columns[k], True
                    queue.append((True, int(i)))
    return table - rows[:, None] - columns[None, :], rows, columns


def _classes(link: Link, allowed: Mask, costs: dict[int, Integers]) -> FlowLink:
    stacked = np.stack([allowed.astype(np.int64), *costs.values()])
    first_rows, row_class = _distinct(list(stacked.transpose(1, 0, 2)))
    first_columns, column_class = _distinct(list(stacked.transpose(2, 0, 1)))
    pick = np.ix_(first_rows, first_columns)
    return FlowLink(
        link, (row_class, column_class), allowed[pick], {number: table[pick] for number, table in costs.items()}
    )


def _distinct(tables: Sequence[Integers]) -> tuple[list[int], Integers]:
    """The first index of every distinct table, and the class of each."""
    numbers: dict[bytes, int] = {}
    first: list[int] = []
    classes = np.zeros(len(tables), np.int64)
    for index, table in enumerate(tables):
        key = np.ascontiguousarray(table).tobytes()
        if key not in numbers:
            numbers[key] = len(first)
            first.append(index)
        classes[index] = numbers[key]
    return first, classes
