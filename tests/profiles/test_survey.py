"""The typical layers."""

from __future__ import annotations

from bitplan.profiles.cost_terms import family
from bitplan.profiles.step_shape import step_shape
from bitplan.profiles.survey import MOST_WEIGHTS, survey_networks


def test_every_network_is_of_a_size_that_is_planned_for_cpus() -> None:
    for network in survey_networks():
        weights = sum(network.weight_shape(node).count for node in network.layers)
        assert weights <= MOST_WEIGHTS or len(network.inputs) == 1  # a single chain may be larger


def test_every_family_has_many_different_shapes_odd_ones_among_them() -> None:
    shapes = {network.signature(node) for network in survey_networks() for node in network.layers}
    for name, fewest in (("rows", 150), ("grouped", 40), ("row", 60)):
        members = [shape for shape in map(step_shape, shapes) if family(shape) == name]
        assert len(members) >= fewest
        assert any(shape.out_channels % 4 for shape in members)
    assert any(shape.group_channels % 4 for shape in map(step_shape, shapes) if family(shape) == "row")


def test_they_are_the_same_every_time() -> None:
    names = [node.name for network in survey_networks() for node in network.nodes]
    survey_networks.cache_clear()
    assert [node.name for network in survey_networks() for node in network.nodes] == names
