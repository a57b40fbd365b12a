"""Whether a policy, hand-edited or not, can be carried out on a network."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from bitplan.errors import UsageError
from bitplan.network import Network
from bitplan.policies.policy import LayerPolicy, Policy
from bitplan.policies.variants import check_kernel, check_variant, stored_bytes, supports, why_not
from bitplan.suggest import suggestion
from bitplan.variant import Variant


def validate_against(policy: Policy, network: Network, menu: Mapping[str, Collection[Variant]] | None = None) -> Policy:
    """The policy in the network's order of layers, with each layer's expected bytes counted anew; where they differ
    from what was expected, the variant was edited, and its expected latency and loss are dropped.

    Raises UsageError, naming the layer and the rule, for a layer that the network does not have or the policy lacks
    or has twice, an unknown encoding, a parameter out of range, a variant that the layer does not support, a kernel that
    does not run it, and, with a `menu`, a variant that is not on the layer's menu."""
    names = [layer.name for layer in network.layers]
    given: dict[str, LayerPolicy] = {}
    for layer in policy.layers:
        if layer.name in given:
            raise UsageError(f"the policy has layer {layer.name!r} twice; keep one of them")
        given[layer.name] = layer
    for name in given:
        if name in network.by_name and name not in names:
            operation = type(network.by_name[name].op).__name__
            raise UsageError(f"the policy's layer {name!r} is an operation ({operation}) without weights; remove it")
        if name not in names:
            hint = suggestion(name, [n for n in names if n not in given] or names, "its layers")
            raise UsageError(f"the policy's layer {name!r} is not a layer of the network; {hint}")
    missing = [name for name in names if name not in given]
    if missing:
        raise UsageError(
            f"the policy says nothing about {len(missing)} of the network's {len(names)} layers "
            f"({', '.join(map(repr, missing[:5]))}{', ...' if len(missing) > 5 else ''}); give each layer an encoding"
        )
    return replace(policy, layers=tuple(_validated(given[name], network, menu) for name in names))


def _validated(layer: LayerPolicy, network: Network, menu: Mapping[str, Collection[Variant]] | None) -> LayerPolicy:
    try:
        variant = check_variant(layer.variant)
        check_kernel(variant, layer.kernel)
    except UsageError as error:
        raise UsageError(f"layer {layer.name!r}: {error}") from None
    shape = network.weight_shape(network.by_name[layer.name])
    if not supports(variant, shape):
        raise UsageError(f"layer {layer.name!r} cannot be {variant}: {why_not(variant, shape)}")
    if menu is not None and variant not in menu[layer.name]:
        offered = ", ".join(map(str, menu[layer.name]))
        raise UsageError(f"layer {layer.name!r}: {variant} is not on its menu; it has {offered}")
    size = stored_bytes(shape, variant)
    if size != layer.bytes:
        return replace(layer, variant=variant, bytes=size, latency_ms=None, loss=None)
    return replace(layer, variant=variant)
