"""One layer under recovery, as the tests of steps on single layers need it."""

from __future__ import annotations

from bitplan.formats import derive_formats
from bitplan.policies.realise import Subject
from bitplan.policies.realise.front import Front
from bitplan.variant import FLOAT32


def subject_of(network, simulator, images, ranges, name, variant):
    """The layer alone quantised, between two full-precision fronts."""
    node = network.by_name[name]
    formats = derive_formats(network, {n.name: variant if n is node else FLOAT32 for n in network.layers})
    full = Front.of_images(simulator, images, 16)
    quantised = full.fork()
    full.advance(network.nodes.index(node))
    quantised.advance(network.nodes.index(node), None, ranges, formats)
    return Subject(node, full, quantised, ranges, formats)
