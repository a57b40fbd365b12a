"""Forward passes, stated before they are executed."""

from __future__ import annotations

from math import prod

from bitplan.network import Network, Node
from bitplan.profiles.estimators.method import Cost
from bitplan.profiles.loss_walk import Job, Place


def multiplications(network: Network, node: Node) -> int:
    """Of one image in one node; operations without weights count as one per number that they make."""
    numbers = prod(node.shape)
    return numbers * network.weight_shape(node).reduction if node in network.layers else numbers


def shares_left(network: Network) -> list[float]:
    """By the number of a node, and one more: the share of a forward pass that is left before it."""
    work = [multiplications(network, node) for node in network]
    total = sum(work)
    return [sum(work[number:]) / total for number in range(len(work) + 1)]


def walk_cost(job: Job) -> Cost:
    """Of a LossWalk: ranges and full outputs (three passes), the values in front of the layers (one), and each choice
    from where it begins to the end."""
    left = shares_left(job.network)
    around = job.around.variants if job.around else None
    places = [Place(job.network, node, job.choices, around) for node in job.network.layers]
    passes = sum(left[place.start] * len(place.variants) for place in places)
    return Cost(sum(len(place.variants) for place in places) + 4, passes + 4)
